# What real boots have to show, each judged by a running verifier. Sourced by scripts/vm.
#
# A journey: `boot` with what is special, say what must be seen (`must_be`, `must_deviate`, `must_be_refused`: bounded
# waits for the verifier's word). It may leave the machine on: the next boot turns it off. Its name goes into `journeys`.
#
# The verifier's *first* word on what happened counts, not the one that it comes to: a false alarm fails as a miss does.

# Those after `golden` and `rules`, in the order in which they are run.
journeys="unexpected_executable cold_reboot violation suspend_to_memory cut_power command_line changed_initrd \
another_kernel rollback secure_boot kernel_update secure_boot_off secure_boot_fallback"
smoke=unexpected_executable

journey_number=0
journey() {
    journey_done
    journey_number=$((journey_number + 1))
    journey_started=$(now)
    printf '\n%s%2d. %s%s\n' "$bold" "$journey_number" "$1" "$plain"
}
journey_done() { [ "$journey_number" = 0 ] || say "    done in $(seconds $(($(now) - journey_started)))"; }
ok() { printf '    %sok%s %s, %s after power on\n' "$green" "$plain" "$1" "$(seconds $(($(now) - powered_on)))"; }
show_deviations() { deviations | cut -c 1-220 | sed 's/^/    | /'; }

# Turns the machine off where it is on, and on again with what is special; without words the usual.
boot() {
    ended || power_off
    # For `rollback`.
    [ -e "$home/tpm.snapshot" ] || snapshot_tpm
    boots_with "$@"
    power_on
}
# The machine is on, in order, and does what it is told.
runs_well() {
    if ended || ! posture_is affirming; then boot; fi
    must_be affirming
    is_up
}

# The first word by evidence of after $since.
must_be() {
    await "$limit" "a word on $machine" judged
    [ "$posture" = "$1" ] || fail "$machine is $posture instead of $1"
    ok "$1"
}
# Where rules have just changed, so that evidence by the old ones may come first.
must_become() {
    await "$limit" "$machine to become $1" posture_is "$1"
    ok "$1"
}
# The first word is that this deviates and nothing else: codes in the alphabet's order.
must_deviate() {
    await "$limit" "a word on $machine" judged
    [ "$posture" = contraindicated ] || fail "$machine is $posture"
    show_deviations
    local codes
    codes=$(deviations | cut -d ' ' -f 1 | sort -u | paste -s -d ' ')
    [ "$codes" = "$1" ] || fail "what deviates is '$codes' instead of '$1'"
    ok "contraindicated: $1"
}
# What a machine has just done deviates by this code, at once where evidence is on its way, and by the first evidence of
# after it in any case.
must_be_caught() {
    since=$(now)
    caught() { current_posture any && deviations | grep -q "^$1 " || judged; }
    await "$limit" "a word on $machine" caught "$1"
    deviations | grep -q "^$1 " || fail "the first evidence of after it has no $1"
    say "    caught after $(seconds $(($(now) - since))); evidence comes every $interval s"
}
# Of what deviates, this code says this word.
must_name() { deviations | grep -q "^$1 .*$2" || fail "no $1 names $2"; }
must_be_refused() {
    await "$limit" "a refusal with $1" refused_with "$1"
    ok "refused: $1"
}

# The same boot once more, by the values of PCRs alone: what the rules say differs is what differs.
must_deviate_by_pcrs() {
    set_profile "$machine" "$site/$machine.collect.toml" "PCR values alone"
    deviates() { current_posture && [ "$(deviating_pcrs)" = "$1" ]; }
    await "$limit" "PCRs $1 to deviate" deviates "$1"
    [ "$(deviations | cut -d ' ' -f 1 | sort -u)" = pcr_mismatch ] || fail "more than PCR values deviates"
    say "    without rules: by the values of PCR $1"
    set_profile "$machine" "$site/$machine.toml" "rules again"
}

# From a good boot of a machine to rules for it, as an operator comes to them: values, logs, rules. All that runs in every
# boot has run. A digest set that is named is taken; without one the machine's is made.
learn() {
    local set=${1:-} more=${2:-}
    is_up
    profile_that_collects 'ignored = [10]' > "$site/$machine.collect.toml"
    since=$(now)
    set_profile "$machine" "$site/$machine.collect.toml" "PCR values, and logs to look at"
    quoted() { judged && ! deviations | grep -q '^pcr_not_quoted '; }
    await "$limit" "a quote of all PCRs" quoted
    verifier reference capture "$node" --name "$machine" --reason "a good boot" > "$site/capture.log" || fail "capture"
    must_become affirming
    if [ -z "$set" ]; then
        set=base
        verifier digests capture "$node" --name "$set" --reason "a good boot" > "$site/digests.log" || fail "digests"
        say "    digests: $(tail -n 1 "$site/digests.log")"
    fi
    {
        profile_that_collects "$more"
        verifier node boot "$node" --rules || fail "node boot"
        printf '\n[runtime]\ndigest_sets = ["%s"]\n' "$set"
    } > "$site/$machine.toml"
    sed -n 's/^# left out: /    left out: /p; s/^explained = /    PCRs explained by events: /p' "$site/$machine.toml"
    set_profile "$machine" "$site/$machine.toml" "what may boot, and what may run"
    must_become affirming
    since=$(now)
    must_be affirming
}

# What is computed of the machine's UKI, as a file, is what its TPM quoted when it was captured: PCRs 4 and 9.
must_be_computed() {
    local file=$site/uki.efi value count=0
    mcopy -n -o -i "$home/esp@@1M" ::EFI/BOOT/BOOTX64.EFI "$file"
    verifier reference show "$machine" > "$site/captured.log" || fail "reference show"
    verifier reference compute boot --uki "$file" > "$site/computed.log" || fail "reference compute boot"
    for value in $(sed -n -E 's/^(4|9) .*sha256:([0-9a-f]{64}) +(boot option of EDK2, Secure Boot on|the kernel.s EFI stub, .*)$/\2/p' \
        "$site/computed.log"); do
        grep -q "$value" "$site/captured.log" || fail "$value was computed of the UKI, and not measured"
        count=$((count + 1))
    done
    [ "$count" = 2 ] || fail "$count values of PCRs were computed of the UKI instead of 2"
    say "    computed of the file, and quoted: PCRs 4 and 9"
}

golden() {
    journey "golden: admitted by its token, unknown to every reference, captured, affirming by PCR values"
    machine=machine
    manufacture
    open_site
    expect_machine
    boots_with
    power_on
    must_be contraindicated
    verifier reference capture "$node" --name default --reason "the golden boot" > "$site/capture.log" || fail "capture"
    must_be affirming
}
rules() {
    journey "its logs, rules made of them, and affirming by the rules"
    learn
}
unexpected_executable() {
    journey "a program runs that was never installed"
    runs_well
    order execute
    must_be_caught runtime_unknown_file
    must_deviate runtime_unknown_file
    must_name runtime_unknown_file /unexpected/busybox
}
cold_reboot() {
    journey "off and on again: what ran in the boot before counts no more"
    boot
    must_be affirming
}
violation() {
    journey "a file is read while someone has it open for writing"
    runs_well
    order violate
    must_be_caught runtime_violation
    must_deviate "runtime_unknown_file runtime_violation"
    must_name runtime_violation /violated
}
suspend_to_memory() {
    journey "suspended to memory and woken up"
    runs_well
    suspend_and_resume
    # Only evidence from after the sleep counts.
    since=$(now)
    must_be affirming
}
cut_power() {
    journey "its power is cut; on again"
    runs_well
    order save
    power_cut
    power_on
    must_be affirming
    is_up
}
command_line() {
    journey "another command line"
    boot CMDLINE="$usual_cmdline init=/bin/sh"
    must_deviate "boot_command_line boot_command_line_missing"
    # The EFI stub measures the words, and writes no word of them into the log.
    must_name boot_command_line "load options of the kernel"
    must_deviate_by_pcrs 9
    power_cut
}
changed_initrd() {
    journey "one file more in the initramfs; QEMU writes its size into the kernel's header, too"
    boot CHANGED=1
    must_deviate "boot_application boot_application_missing boot_initrd boot_initrd_missing"
    must_deviate_by_pcrs 4,9
    power_cut
}
another_kernel() {
    local other
    other=$(other_kernel)
    journey "another kernel, ${other:-of which apt offers none}"
    if [ -z "$other" ]; then say "    skipped: apt offers only $kernel"; return; fi
    boot KERNEL="$other"
    must_deviate "boot_application boot_application_missing boot_initrd boot_initrd_missing runtime_unknown_file"
    must_name runtime_unknown_file /modules/
    must_deviate_by_pcrs 4,9
    power_cut
}
rollback() {
    journey "the TPM's state of after the golden boot is put back, some boots later"
    [ -e "$home/tpm.snapshot" ] || { boot; must_be affirming; }
    ended || power_off
    roll_tpm_back
    boot
    must_be_refused reset_count_went_back
    power_cut
}

secure_boot() {
    journey "another machine: a signed UKI, Secure Boot on; rules of its boot, and the files of the first machine"
    ended || power_off
    machine=secure
    manufacture
    expect_machine
    boots_with LOADER=uki SECURE_BOOT=1
    power_on
    must_be contraindicated
    # Its boot entries and disks are its own.
    learn base 'ignored = [1, 5]'
    must_be_computed
    grep -q '^mode = "required"$' "$site/$machine.toml" || fail "the rules do not require Secure Boot"
    boot LOADER=uki SECURE_BOOT=1
    must_be affirming
}
# An update as OPERATING.md has it: what it will measure is computed from files before it boots, and staged.
kernel_update() {
    local other profile=$site/update.toml
    [ "$machine" = secure ] || secure_boot
    other=$(other_kernel)
    journey "an update of the kernel to ${other:-another one, of which apt offers none}: computed, staged, booted, promoted"
    if [ -z "$other" ]; then say "    skipped: apt offers only $kernel"; return; fi
    if ended || ! posture_is affirming; then boot LOADER=uki SECURE_BOOT=1; must_be affirming; fi
    # What the boot rules say of the kernel comes from a set instead, and what is in the set from files.
    compute_boot "$kernel" "$site/kernel-a.json"
    verifier reference set kernel "$site/kernel-a.json" --reason "from files" > "$site/sets.log" || fail "reference set"
    rules_of_kernel_from_set kernel < "$site/$machine.toml" > "$profile"
    set_profile "$machine" "$profile" "the kernel by its set"
    must_become affirming
    since=$(now)
    must_be affirming
    boots_with LOADER=uki SECURE_BOOT=1 KERNEL="$other"
    compute_boot "$other" "$site/kernel-b.json"
    verifier reference compute files "$directory/kernels/$other/initrd" --out "$site/files-b.digests" > "$site/compute.log" \
        || fail "compute files"
    verifier reference stage kernel "$site/kernel-b.json" --reason "kernel $other" > "$site/sets.log" || fail "stage kernel"
    verifier reference stage base "$site/files-b.digests" --reason "kernel $other" > "$site/sets.log" || fail "stage base"
    since=$(now)
    must_be affirming
    boot LOADER=uki SECURE_BOOT=1 KERNEL="$other"
    must_be affirming
    verifier reference promote kernel --reason "everybody has it" > "$site/sets.log" || fail "promote kernel"
    verifier reference promote base --reason "everybody has it" > "$site/sets.log" || fail "promote base"
    since=$(now)
    must_be affirming
    boot LOADER=uki SECURE_BOOT=1
    must_deviate "boot_application boot_application_missing boot_event_unexplained boot_initrd boot_initrd_missing runtime_unknown_file"
    must_name runtime_unknown_file /modules/
    power_cut
    # As the other journeys have it.
    set_profile "$machine" "$site/$machine.toml" "the kernel by the rules"
}
# What the UKI on the machine's ESP will measure.
compute_boot() {
    mcopy -n -o -i "$home/esp@@1M" ::EFI/BOOT/BOOTX64.EFI "$site/uki.efi"
    verifier reference compute boot --uki "$site/uki.efi" --package "linux-image-$1" --output json > "$2" || fail "compute boot"
}
# Rules without what they say of boot applications and initrds, which come from a set; what the UKI's stub measures of it in
# PCR 11 is in the set, too.
rules_of_kernel_from_set() {
    awk -v set="$1" '
        /^pcrs = / { sub(/10, 14\]/, "10, 11, 14]") }
        /^explained = / { sub(/9\]/, "9, 11]") }
        /^\[/ { dropped = /^\[\[boot\.(boot_applications|initrds)\]\]/ }
        !dropped { print }
        /^\[boot\]$/ { printf "sets = [\"%s\"]\n", set }'
}
secure_boot_off() {
    [ "$machine" = secure ] || secure_boot
    journey "the same UKI and firmware, and no keys in it: Secure Boot is off"
    boot LOADER=uki SECURE_BOOT=off
    # Where nothing is checked the UKI starts its kernel as a second program; and OVMF's first volume is measured as it lies
    # in memory, with what depends on its variables.
    must_deviate "boot_application boot_firmware secure_boot_not_on secure_boot_variable"
    power_cut
}
secure_boot_fallback() {
    [ "$machine" = secure ] || secure_boot
    journey "Secure Boot says that it is on, and OVMF starts a kernel of QEMU's that nobody signed"
    boot SECURE_BOOT=1
    # OVMF enters it by the EFI handover protocol: past LoadImage, which would measure the program, and past the stub's entry,
    # which would measure the command line. The initramfs is measured, and is the one in the UKI.
    must_deviate "boot_application_missing boot_command_line_missing secure_boot_no_authority"
    power_cut
}

test_boots() {
    local name started chosen=$*
    case $chosen in
        smoke) chosen=$smoke ;;
        all | '') chosen=$journeys ;;
    esac
    for name in $chosen; do
        case " $journeys " in *" $name "*) ;; *) usage "no such journey: '$name'" ;; esac
    done
    prepare
    started=$(now)
    golden
    rules
    for name in $chosen; do $name; done
    ended || power_off
    journey_done
    printf '\n%sEvery boot was judged as it has to be%s, in %s.\n' "$bold$green" "$plain" \
        "$(seconds $(($(now) - started)))"
}
