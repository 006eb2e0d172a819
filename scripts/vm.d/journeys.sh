# What real boots have to show, each judged by a running verifier. Sourced by scripts/vm.
#
# A journey: set what is booted (`boots_with`), `power_on`, say what must be seen (`must_be`, `must_deviate`,
# `must_be_refused`: bounded waits for the verifier's word), turn the machine off.

journey_number=0
journey() {
    journey_number=$((journey_number + 1))
    printf '\n%s%2d. %s%s\n' "$bold" "$journey_number" "$1" "$plain"
}
ok() { printf '    %sok%s %s, %s after power on\n' "$green" "$plain" "$1" "$(seconds $(($(now) - powered_on)))"; }

must_be() {
    await "$limit" "$machine to be $1" posture_is "$1"
    ok "$1"
}
# The verifier's first word on this boot is that these PCRs deviate, and no others.
must_deviate() {
    await "$limit" "a word on $machine" judged
    [ "$posture" = contraindicated ] || fail "the boot is $posture"
    local pcrs
    pcrs=$(deviating_pcrs)
    verifier node show "$node" | grep '^  deviation' | cut -c 1-110 | sed 's/^ */    | /'
    [ "$pcrs" = "$1" ] || fail "PCRs that deviate: $pcrs instead of $1"
    ok "contraindicated by PCR $pcrs"
}
must_be_refused() {
    await "$limit" "a refusal with $1" refused_with "$1"
    ok "refused: $1"
}

golden() {
    journey "golden: admitted by its token, unknown to every reference, captured, affirming"
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
command_line() {
    journey "another command line: PCR 9"
    boots_with CMDLINE="$usual_cmdline init=/bin/sh"
    power_on
    must_deviate 9
    power_cut
}
changed_initrd() {
    journey "one file more in the initramfs: PCR 9, and 4, since QEMU writes its size into the kernel's header"
    boots_with CHANGED=1
    power_on
    must_deviate 4,9
    power_cut
}
another_kernel() {
    local other
    other=$(other_kernel)
    journey "another kernel, ${other:-of which apt offers none}"
    if [ -z "$other" ]; then say "    skipped: apt offers only $kernel"; return; fi
    boots_with KERNEL="$other"
    power_on
    must_deviate 4,9
    power_cut
}
cold_reboot() {
    journey "off and on again"
    boots_with
    power_on
    must_be affirming
}
suspend_to_memory() {
    journey "suspended to memory and woken up"
    is_up
    suspend_and_resume
    # Only evidence from after the sleep counts.
    since=$(now)
    must_be affirming
}
cut_power() {
    journey "its power is cut; on again"
    order save
    power_cut
    power_on
    must_be affirming
    is_up
    power_off
}
rollback() {
    journey "the TPM's state of after the golden boot is put back, some boots later"
    roll_tpm_back
    boots_with
    power_on
    must_be_refused reset_count_went_back
    power_cut
}

test_boots() {
    case $1 in smoke | all) ;; *) usage "no such test: '$1'" ;; esac
    local started
    prepare
    started=$(now)
    golden
    is_up
    power_off
    snapshot_tpm
    command_line
    if [ "$1" = all ]; then
        changed_initrd
        another_kernel
        cold_reboot
        suspend_to_memory
        cut_power
        rollback
    fi
    printf '\n%sEvery boot was judged as it has to be%s, in %s.\n' "$bold$green" "$plain" \
        "$(seconds $(($(now) - started)))"
}
