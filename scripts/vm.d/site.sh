# A verifier on this machine, and what it says of the machines. Sourced by scripts/vm.

# Seconds between two pieces of evidence.
interval=2

verifier() { "$programs/rootbound-verifier" --config "$site/verifier.toml" "$@"; }

# Starts a verifier from nothing: it trusts the CA of the machines' TPMs, and wants evidence every $interval seconds.
open_site() {
    site=$directory/site
    rm -rf "$site"
    mkdir -p "$site/ek-roots"
    make_tpm_ca
    # The CA appears with the first TPM.
    [ -e "$directory/tpm-ca/issuercert.pem" ] || fail "there is no TPM yet"
    cp "$directory/tpm-ca/swtpm-localca-rootca-cert.pem" "$directory/tpm-ca/issuercert.pem" "$site/ek-roots/"
    # The guests see this machine's 127.0.0.1 as 10.0.2.2.
    verifier init --state "$site/state" --trust-domain vm.example --ip 10.0.2.2 --ip 127.0.0.1 --listen 127.0.0.1:0 \
        --ek-roots "$site/ek-roots" --revocation-if-available > "$site/init.log" || fail "init"
    # An emulated TPM under load takes its time.
    sed -i 's/^oldest_quote = .*/oldest_quote = "60s"/; s/^activation = .*/activation = "120s"/' "$site/verifier.toml"
    "$programs/rootbound-verifier" --config "$site/verifier.toml" run 2> "$site/verifier.log" &
    pids+=("$!")
    ready() { verifier healthcheck >/dev/null 2>&1; }
    await 30 "the verifier" ready
    verifier profile show default | sed "s/^interval = .*/interval = \"${interval}s\"/; s/^stale_after = .*/stale_after = 60/" \
        > "$site/profile.toml"
    set_profile default "$site/profile.toml" "evidence every $interval seconds"
}

set_profile() { verifier profile set "$1" "$2" --reason "$3" > "$site/profile.log" || fail "profile set $1"; }

# The profile of the machine as far as it has no rules: both logs are collected, and each PCR but 10 is judged by its value.
# PCRs 11 and 12 are a UKI's alone, which PCR 4 has whole. More keys may follow.
profile_that_collects() {
    cat <<END
references = ["$machine"]
interval = "${interval}s"
stale_after = 60
credential_lifetime = "10m"
collect = ["boot_log", "ima"]
$1

[match_labels]
vm = "$machine"

[[pcrs]]
bank = "sha256"
pcrs = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14]

[credential_policy]
bank = "sha256"
pcrs = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14]
END
}

# Hands the machine its configuration for a verifier on a port of this machine.
give_attester() {
    mkdir -p "$home/given"
    cp "$2" "$home/given/bundle.pem"
    cat > "$home/given/attester.toml" <<END
[tpm.device]

[verifier]
url = "https://10.0.2.2:$1"
ca_file = "/run/rootbound/bundle.pem"
request_timeout = "60s"

[state]
directory = "/run/kept/state"

[deliver]
directory = "/run/svid"
END
    [ -z "$3" ] || {
        printf '%s' "$3" > "$home/given/join-token"
        printf '\n[enrollment]\njoin_token_file = "/run/rootbound/join-token"\n' >> "$home/given/attester.toml"
    }
}

# The first string of that name in JSON on standard input: enough for our own output, which escapes nothing in these.
field() { { grep -o "\"$1\": *\"[^\"]*\"" || true; } | head -n 1 | sed 's/.*: *"\(.*\)"/\1/'; }

# Makes a machine that the verifier will admit; its label finds it again.
expect_machine() {
    local token
    token=$(verifier join-token create --label "vm=$machine" --output json | field token)
    [ "$token" ] || fail "no join token"
    local address
    address=$(cat "$site/state/listen.addr")
    give_attester "${address##*:}" "$site/state/bundle.pem" "$token"
    node=
}

enrolled() {
    node=$(verifier node list --label "vm=$machine" --output json | field id)
    [ "$node" ]
}
# What the verifier says of the machine, where that rests on evidence of after $since; or on whatever, if told so.
current_posture() {
    [ "$node" ] || enrolled || return 1
    shown=$(verifier node show "$node" --output json)
    local evidence_at
    evidence_at=$(sed -n 's/^ *"evidence_at": *\([0-9]*\),*$/\1/p' <<< "$shown")
    [ "${1:-}" = any ] || [ "${evidence_at:-0}" -gt "$since" ] || return 1
    posture=$(field status <<< "$shown")
}
posture_is() { current_posture && [ "$posture" = "$1" ]; }
judged() { current_posture && [[ $posture = affirming || $posture = contraindicated ]]; }
# What deviates, as lines of a code and its words.
deviations() {
    awk '
        /^  "posture": / { inside = 1 }
        /^  }/ { inside = 0 }
        inside && $1 == "\"code\":" { code = $2; gsub(/[",]/, "", code) }
        inside && $1 == "\"detail\":" { sub(/^ *"detail": "/, ""); sub(/",?$/, ""); print code, $0 }' <<< "$shown"
}
# Which PCRs deviate, as a list of numbers.
deviating_pcrs() {
    { grep -o '"pcr": *[0-9]*' || true; } <<< "$shown" | sed 's/.*: *//' | sort -n -u | paste -s -d ,
}
# Whether something that the machine asked for after $since was refused with a code.
refused_with() {
    verifier node show "$node" --output json | awk -v since="$since" -v code="\"$1\"," '
        $1 == "\"at\":" { at = $2 + 0 }
        $1 == "\"code\":" { is_code = $2 == code }
        $1 == "\"granted\":" && $2 == "false," && is_code && at > since { found = 1 }
        END { exit !found }'
}
