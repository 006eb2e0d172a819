# Functions for a verifier and machines with software TPMs in a temporary folder; sourced by scripts/demo and
# scripts/check-interop. Whoever sources it has $work, the folder, $programs, the programs' folder, pids, an array of what has to
# run on, and fail, which says why and ends. With [tpm.swtpm] `owned = true` nobody but the attester uses the TPM.

# Polls a condition, for at most so many seconds.
await() {
    local seconds=$1 what=$2
    shift 2
    local deadline=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        for pid in "${pids[@]}"; do
            kill -0 "$pid" 2>/dev/null || fail "$what: process $pid has ended"
        done
        [ $SECONDS -lt $deadline ] || fail "$what: not within $seconds s"
        sleep 0.1
    done
}

verifier() { "$programs/rootbound-verifier" --config "$work/verifier.toml" "$@"; }
attester() { "$programs/rootbound-attester" --config "$work/attester.toml" "$@"; }
# The first string of that name in JSON on standard input: enough for our own output, which escapes nothing in these.
field() { grep -o "\"$1\": *\"[^\"]*\"" | head -n 1 | sed 's/.*: *"\(.*\)"/\1/'; }
posture_is() { [ "$(verifier node show "$node" --output json | field status)" = "$1" ]; }
# Somebody measures something into a PCR.
extend() { tpm2_pcrextend "$1:sha256=$(printf '%s' "$2" | sha256sum | cut -d' ' -f1)"; }

# libtss2 writes warnings of its own to stderr; what matters comes back as an error.
export TSS2_LOG=all+none

# Makes a TPM in a folder, by the CA in $work/tpm-ca.
manufacture() {
    mkdir -p "$1"
    swtpm_setup --tpm2 --tpmstate "$1" --config "$work/tpm-ca/setup.conf" --create-ek-cert --lock-nvram --vmid demo \
        --overwrite --logfile "$work/swtpm_setup.log" >/dev/null || fail "swtpm_setup"
}

# Starts the TPM in a folder; its port is in $port then, and tpm2-tools talk to it.
power_on() {
    local _attempt _wait pid
    # The TCTI of Debian 12 wants a port for commands and the next one for control.
    for _attempt in $(seq 20); do
        port=$((20000 + RANDOM % 10000))
        swtpm socket --tpm2 --tpmstate "dir=$1" --flags not-need-init,startup-clear \
            --server "type=tcp,port=$port,bindaddr=127.0.0.1" --ctrl "type=tcp,port=$((port + 1)),bindaddr=127.0.0.1" \
            --log "file=$work/swtpm.log" 2>/dev/null &
        pid=$!
        export TPM2TOOLS_TCTI="swtpm:host=127.0.0.1,port=$port"
        for _wait in $(seq 50); do
            kill -0 $pid 2>/dev/null || break
            if tpm2_getrandom 1 >/dev/null 2>&1 && kill -0 $pid 2>/dev/null; then
                pids+=("$pid")
                return
            fi
            sleep 0.05
        done
        kill $pid 2>/dev/null || true
    done
    fail "no pair of free ports found for swtpm"
}

# A CA for TPMs, in $work/tpm-ca.
tpm_ca() {
    mkdir "$work/tpm-ca"
    cat > "$work/tpm-ca/localca.conf" <<EOF
statedir = $work/tpm-ca
signingkey = $work/tpm-ca/signkey.pem
issuercert = $work/tpm-ca/issuercert.pem
certserial = $work/tpm-ca/certserial
EOF
    cat > "$work/tpm-ca/localca.options" <<EOF
--platform-manufacturer Rootbound
--platform-version 1
--platform-model Demo
EOF
    cat > "$work/tpm-ca/setup.conf" <<EOF
create_certs_tool = $(command -v swtpm_localca)
create_certs_tool_config = $work/tpm-ca/localca.conf
create_certs_tool_options = $work/tpm-ca/localca.options
active_pcr_banks = sha256
EOF
}

attester_config() {
    cat <<EOF
[tpm.swtpm]
host = "127.0.0.1"
port = $1
owned = true

[verifier]
url = "https://$address"
ca_file = "$work/verifier/bundle.pem"

[state]
directory = "$2"

[deliver]
directory = "$3"
EOF
}
