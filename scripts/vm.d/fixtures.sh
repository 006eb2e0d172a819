# Logs and quotes of real boots, small enough to be committed. Sourced by scripts/vm.

# One boot of a new machine: its name, what is special about it, what it is told to do (words or nothing), and what
# `boots_with` takes.
fixture() {
    local about=$2 orders=$3 folder=$PWD/swtpm-tests/fixtures/boots/$1 word
    machine=fixture-$1
    say "$1: $about"
    shift 3
    manufacture
    boots_with TOOLS=1 "$@"
    # The same each time, unlike all else in a quote.
    printf '%s' "$machine" | openssl dgst -sha256 -binary > "$home/given/nonce"
    power_on
    is_up
    for word in $orders; do order "$word"; done
    order quote
    power_off
    saved_evidence "$folder"
    cp "$home/given/nonce" "$folder/nonce.bin"
    printf '%s\n' "$about" > "$folder/about"
    awk '
        $1 != bank { printf "%s\"%s\": {", bank ? "},\n" : "{", $1; bank = $1; separator = "" }
        { printf "%s\n  \"%d\": \"%s\"", separator, $2, tolower($3); separator = "," }
        END { print "}}" }' "$folder/pcrs" > "$folder/pcrs.json"
    rm "$folder/pcrs"
}

make_fixtures() {
    fixture golden "the usual boot; all others differ from it in what they say" ""
    fixture command-line "another command line" "" CMDLINE="$usual_cmdline lockdown=none"
    fixture initramfs "one file more in the initramfs" "" CHANGED=1
    local other
    other=$(other_kernel)
    [ -z "$other" ] || fixture kernel "another kernel, with its modules in the initramfs" "" KERNEL="$other"
    fixture unexpected-executable "a program runs that was never installed" execute
    fixture violation "a file is read while someone has it open for writing" violate
    fixture suspend "suspended to memory and woken up before the quote" suspend
    fixture uki "a unified kernel image from an ESP, Secure Boot off" "" LOADER=uki UNSIGNED=1
    fixture secure-boot "a signed unified kernel image from an ESP, Secure Boot on" "" LOADER=uki SECURE_BOOT=1
    fixture secure-boot-fallback "Secure Boot on, but the kernel came by QEMU's -kernel, which OVMF starts unverified" "" \
        SECURE_BOOT=1
    du -sh "$PWD/swtpm-tests/fixtures/boots"
}
