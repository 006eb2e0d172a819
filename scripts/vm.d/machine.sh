# One machine: a TPM, firmware variables, a disk; power on, commands, power off, power cut. Sourced by scripts/vm.
#
# What PCRs 0 and 1 measure depends on the shape of the machine (memory, processors, firmware build, devices), so that
# shape is the same for all.

usual_cmdline="console=ttyS0 quiet panic=-1 rootfstype=ramfs ima_policy=tcb ima_hash=sha256 ima_template=ima-sig"

# The CA that the TPMs of these machines have their EK certificates from.
make_tpm_ca() {
    local ca=$directory/tpm-ca
    [ ! -e "$ca/setup.conf" ] || return 0
    mkdir -p "$ca"
    cat > "$ca/localca.conf" <<END
statedir = $ca
signingkey = $ca/signkey.pem
issuercert = $ca/issuercert.pem
certserial = $ca/certserial
END
    printf '%s\n' "--platform-manufacturer Rootbound" "--platform-version 1" "--platform-model VM" \
        > "$ca/localca.options"
    cat > "$ca/setup.conf" <<END
create_certs_tool = $(command -v swtpm_localca)
create_certs_tool_config = $ca/localca.conf
create_certs_tool_options = $ca/localca.options
active_pcr_banks = sha1,sha256
END
}

# Makes the machine whose name is in $machine anew.
manufacture() {
    home=$directory/machines/$machine
    rm -rf "$home"
    mkdir -p "$home/tpm" "$home/given"
    make_tpm_ca
    swtpm_setup --tpm2 --tpmstate "$home/tpm" --config "$directory/tpm-ca/setup.conf" --create-ek-cert --lock-nvram \
        --vmid "$machine" --overwrite --logfile "$home/swtpm_setup.log" >/dev/null || fail "swtpm_setup, see $home"
    truncate -s 32M "$home/disk"
    boots=0
}

# Sets what the next boots of the machine boot; without words the usual.
boots_with() {
    local CMDLINE=$usual_cmdline INITRD='' KERNEL=$kernel LOADER=direct SECURE_BOOT='' UNSIGNED='' TOOLS='' CHANGED=''
    local assignment
    for assignment; do
        case $assignment in
            CMDLINE=* | INITRD=* | KERNEL=* | LOADER=direct | LOADER=uki | SECURE_BOOT=* | UNSIGNED=* | TOOLS=* | CHANGED=*)
                local "${assignment?}" ;;
            *) usage "no variable of a boot: '$assignment'" ;;
        esac
    done
    local image=initrd${TOOLS:+-tools}${CHANGED:+-changed}
    fetch_kernel "$KERNEL"
    [ "$INITRD" ] || make_initrd "$KERNEL" "$image"
    local vmlinuz=$directory/kernels/$KERNEL/vmlinuz initrd=${INITRD:-$directory/kernels/$KERNEL/$image}
    local code=/usr/share/OVMF/OVMF_CODE_4M.fd template=/usr/share/OVMF/OVMF_VARS_4M.fd smm=off
    if [ "$SECURE_BOOT" ]; then
        code=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd smm=on
        [ "$SECURE_BOOT" = off ] || template=/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd
    fi
    local vars=$home/vars.${SECURE_BOOT:+secure-boot-$SECURE_BOOT.}fd
    [ -e "$vars" ] || cp "$template" "$vars"
    boot_options=(
        -machine "q35,smm=$smm"
        -drive "if=pflash,format=raw,unit=0,readonly=on,file=$code" -drive "if=pflash,format=raw,unit=1,file=$vars"
    )
    [ -z "$SECURE_BOOT" ] || boot_options+=(-global driver=cfi.pflash01,property=secure,value=on)
    if [ "$LOADER" = uki ]; then
        make_esp "$vmlinuz" "$initrd" "$CMDLINE" "$([ "$UNSIGNED" ] || echo signed)" "$home/esp"
        boot_options+=(
            -drive "if=none,id=esp,format=raw,readonly=on,file=$home/esp"
            -device nvme,drive=esp,serial=esp,bootindex=0,addr=0x12
        )
    else
        boot_options+=(-kernel "$vmlinuz" -initrd "$initrd" -append "$CMDLINE")
    fi
}

# Turns the machine on, with what `boots_with` set; what is in $home/given reaches it as it is, unmeasured.
power_on() {
    local file fw_cfg=() pipe
    boots=$((boots + 1))
    console=$home/console.$boots
    rm -f "$home"/*.in "$home"/*.out "$home"/qmp.log "$home/swtpm.socket"
    for pipe in qmp control; do mkfifo "$home/$pipe.in" "$home/$pipe.out"; done
    for file in "$home"/given/*; do
        [ ! -e "$file" ] || fw_cfg+=(-fw_cfg "name=opt/rootbound/$(basename "$file"),file=$file")
    done
    # In sessions of their own, out of reach of Ctrl-C; and from the folder, since the path of a socket has to be short.
    (cd "$home" && exec setsid swtpm socket --tpm2 --tpmstate dir=tpm --ctrl type=unixio,path=swtpm.socket --terminate \
        --log file=swtpm.log) &
    tpm_process=$!
    pids+=("$tpm_process")
    await 20 "swtpm" test -S "$home/swtpm.socket"
    powered_on=$(now)
    since=$powered_on
    # Not by KVM, even where there is /dev/kvm: it may be one that OVMF does not start on.
    (cd "$home" && exec setsid qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
        -accel tcg -m 512 -smp 1 \
        -cpu qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16 -global ICH9-LPC.disable_s3=0 "${boot_options[@]}" \
        -chardev socket,id=tpm,path=swtpm.socket -tpmdev emulator,id=tpm,chardev=tpm -device tpm-crb,tpmdev=tpm \
        -drive if=none,id=disk,format=raw,file=disk -device nvme,drive=disk,serial=disk,addr=0x10 \
        -netdev user,id=net -device virtio-net-pci,netdev=net,romfile=,addr=0x11 "${fw_cfg[@]}" \
        -chardev pipe,id=qmp,path=qmp,logfile=qmp.log -mon chardev=qmp,mode=control \
        -serial "file:$console" -chardev pipe,id=control,path=control -serial chardev:control) 2> "$home/qemu.log" &
    machine_process=$!
    pids+=("$machine_process")
    await 20 "QEMU" test -s "$home/qmp.log"
    echo '{"execute": "qmp_capabilities"}' 1<> "$home/qmp.in"
}

report_failure() {
    local log
    if [ "${shown:-}" ]; then show_deviations; fi
    for log in "${console:-}" "${home:-}/qemu.log" "${site:-}/verifier.log"; do
        [ -s "$log" ] || continue
        echo "--- the end of $log:"
        tail -n 15 "$log" | tr -cd '[:print:]\n'
    done
}

said() { grep -qa "vm: $1" "$console"; }
is_up() { await "$limit" "the machine to be up" said up; }
# Has the machine do something, and waits until it has.
order() {
    local before
    if [ "$1" = suspend ]; then suspend_and_resume; return; fi
    before=$(grep -ca "vm: done $1" "$console" || true)
    echo "$1" 1<> "$home/control.in"
    obeyed() {
        ! said "failed $1" || fail "the machine could not $1"
        [ "$(grep -ca "vm: done $1" "$console")" -gt "$before" ]
    }
    await "$limit" "the machine to $1" obeyed "$1"
}
ended() { [ -z "${machine_process:-}" ] || ! kill -0 "$machine_process" 2>/dev/null; }

# In order, with all that is to be kept on the disk.
power_off() {
    is_up
    forget "$machine_process"
    forget "$tpm_process"
    echo poweroff 1<> "$home/control.in"
    await "$limit" "the machine to power off" ended
    wait "$machine_process" "$tpm_process" || true
    machine_process=
    said "done poweroff" || fail "the machine did not keep its state"
    sed -n 's/^.*vm: \(attester: .*\)$/    \1/p' "$console" | tr -d '\r'
}

# Machine and TPM lose their power between two instructions.
power_cut() {
    forget "$machine_process"
    forget "$tpm_process"
    kill -KILL "$machine_process" "$tpm_process" 2>/dev/null || true
    wait "$machine_process" "$tpm_process" 2>/dev/null || true
    machine_process=
}

# To memory and back, by the firmware's S3 path.
suspend_and_resume() {
    local before
    before=$(grep -ca "vm: done suspend" "$console" || true)
    asleep() { grep -q '"SUSPEND"' "$home/qmp.log"; }
    awake() { [ "$(grep -ca "vm: done suspend" "$console")" -gt "$before" ]; }
    echo suspend 1<> "$home/control.in"
    await "$limit" "the machine to sleep" asleep
    echo '{"execute": "system_wakeup"}' 1<> "$home/qmp.in"
    await "$limit" "the machine to wake up" awake
}

# A backup of the TPM's state alone, and its return: what somebody does who wants an old boot to count again.
snapshot_tpm() { rm -rf "$home/tpm.snapshot"; cp -a "$home/tpm" "$home/tpm.snapshot"; }
roll_tpm_back() { rm -rf "$home/tpm"; cp -a "$home/tpm.snapshot" "$home/tpm"; rm -f "$home/tpm/.lock"; }

# The logs that the machine saved last, as files in a folder.
saved_evidence() {
    rm -rf "$1"
    mkdir -p "$1"
    tar -xf "$home/disk" -C "$1" --strip-components=2 ./evidence
}

# `scripts/vm boot`.
boot_once() {
    machine=$1
    shift
    case $machine in *[!a-z0-9-]* | '') usage "a machine's name is of a-z, 0-9 and -" ;; esac
    home=$directory/machines/$machine
    local argument options=() VERIFIER='' BUNDLE='' TOKEN='' ASK='' TOOLS='' word
    for argument; do
        case $argument in
            VERIFIER=* | BUNDLE=* | TOKEN=* | ASK=*) local "${argument?}" ;;
            TOOLS=*) local "${argument?}"; options+=("$argument") ;;
            *) options+=("$argument") ;;
        esac
    done
    if [ -d "$home/tpm" ]; then boots=$(find "$home" -name 'console.*' | wc -l); else manufacture; fi
    boots_with "${options[@]}"
    rm -f "$home"/given/*
    if [ "$VERIFIER" ]; then
        [ -r "$BUNDLE" ] || usage "VERIFIER needs BUNDLE, the verifier's bundle.pem"
        give_attester "${VERIFIER##*:}" "$BUNDLE" "$([ -z "$TOKEN" ] || cat "$TOKEN")"
    fi
    if [ "$TOOLS" ]; then printf '%s' "$machine" | openssl dgst -sha256 -binary > "$home/given/nonce"; fi
    power_on
    is_up
    say "up after $(seconds $(($(now) - powered_on))); its console: $console"
    while read -r word; do [ -z "$word" ] || order "$word"; done <<< "${ASK//;/$'\n'}"
    if [ "$VERIFIER" ]; then
        say "it runs until Ctrl-C"
        trap 'interrupted=1' INT
        interrupted=
        until [ "$interrupted" ] || ended; do sleep 0.5 || true; done
    fi
    [ -z "$TOOLS" ] || order quote
    power_off
    saved_evidence "$home/evidence"
    say "its logs: $home/evidence"
}
