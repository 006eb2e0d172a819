# What the machines boot: packages, kernels, initramfs, a UKI on an ESP. Sourced by scripts/vm.

packages="binutils busybox-static cpio dosfstools fdisk libtss2-tcti-device0 mtools ovmf qemu-system-x86 sbsigntool \
systemd-boot-efi xz-utils zstd"
modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net \
qemu_fw_cfg"

install_packages() {
    # shellcheck disable=SC2086 # a list of words
    scripts/install-deps $packages || cannot "the packages cannot be installed"
}

# The kernel of Debian's cloud images that is current, and the newest other one that apt offers; as versions.
current_kernel() {
    apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: linux-image-\(.*-cloud-amd64\)$/\1/p' | head -n 1
}
other_kernel() {
    apt-cache search --names-only '^linux-image-[0-9.]+[-+][^ ]*-cloud-amd64$' | sed 's/^linux-image-\([^ ]*\) .*/\1/' \
        | grep -vx "$(current_kernel)" | sort -V | tail -n 1
}

# Fetches a kernel, and takes from its package what a boot needs.
fetch_kernel() {
    local version=$1 folder=$directory/kernels/$1 module number=10 file
    [ ! -e "$folder/vmlinuz" ] || return 0
    mkdir -p "$directory/packages" "$folder/modules"
    (cd "$directory/packages" && apt-get -o APT::Sandbox::User=root download -q "linux-image-$version" >/dev/null) \
        || cannot "apt-get cannot download linux-image-$version"
    rm -rf "$folder/tree"
    dpkg -x "$directory/packages/linux-image-$version"_*.deb "$folder/tree"
    for module in $modules; do
        number=$((number + 1))
        file=$(find "$folder/tree/lib/modules" -name "$module.ko*" | head -n 1)
        case $file in
            *.xz) xz -dc "$file" > "$folder/modules/$number-$module.ko" ;;
            *.ko) cp "$file" "$folder/modules/$number-$module.ko" ;;
            '') ;; # built in
        esac
    done
    mv "$folder/tree/boot/vmlinuz-$version" "$folder/vmlinuz"
    rm -rf "$folder/tree" "$directory/packages/linux-image-$version"_*.deb
}

# Puts a program and the libraries that it is linked with into $root.
install_program() {
    local library
    install -D -m 755 "$1" "$root$2"
    # ldd fails where nothing is linked.
    { ldd "$1" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r library; do
        [ -e "$root$library" ] || install -D -m 755 "$(readlink -f "$library")" "$root$library"
    done
}

# The folder $root as an archive of the kernel's, the same bytes from the same files.
pack() {
    find "$root" -exec touch -h -d @1 {} +
    (cd "$root" && find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0 --reproducible) | zstd -q -9 > "$1.new"
    mv "$1.new" "$1"
    rm -rf "$root"
}

# The initramfs for a kernel: `initrd`; with tpm2-tools where the name says -tools, with one file more where it says
# -changed. Kept until the attester or what is written here changes.
make_initrd() {
    local image=$directory/kernels/$1/$2 root=$directory/root from
    local device=/usr/lib/x86_64-linux-gnu/libtss2-tcti-device.so.0
    from=$(cat "$programs/rootbound-attester" "$parts/init" "$parts/images.sh" | sha256sum)
    [ "$(cat "$image.from" 2>/dev/null)" != "$from" ] || return 0
    rm -rf "$root" "$image.from"
    mkdir -p "$root"/{bin,dev,proc,run,sys,tmp}
    install_program /bin/busybox /bin/busybox
    install_program "$programs/rootbound-attester" /bin/rootbound-attester
    strip "$root/bin/rootbound-attester"
    # libtss2 opens it by name: ldd knows nothing of it.
    install_program "$device" "$device"
    cp -r "$directory/kernels/$1/modules" "$root/modules"
    install -m 755 "$parts/init" "$root/init"
    case $2 in *-tools*) install_program /usr/bin/tpm2 /bin/tpm2 ;; esac
    case $2 in *-changed*) echo "not what was captured" > "$root/changed" ;; esac
    pack "$image"
    echo "$from" > "$image.from"
}

find_programs() {
    if [ -z "${VM_PROGRAMS:-}" ]; then
        command -v cargo >/dev/null || fail "install a Rust toolchain (1.95 or newer): https://rustup.rs"
        cargo build --locked --release --bin rootbound-verifier --bin rootbound-attester
        VM_PROGRAMS=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release
    fi
    programs=$(realpath -m "$VM_PROGRAMS")
    [ -x "$programs/rootbound-verifier" ] && [ -x "$programs/rootbound-attester" ] || fail "no programs in $programs"
}

prepare() {
    install_packages
    mkdir -p "$directory"
    exec 9> "$directory/lock"
    flock -n 9 || fail "another scripts/vm is at work in $directory"
    kernel=$(current_kernel)
    [ "$kernel" ] || cannot "apt knows no linux-image-cloud-amd64"
    find_programs
    fetch_kernel "$kernel"
    make_initrd "$kernel" initrd
}

# A disk with an EFI system partition that holds one unified kernel image: kernel, initramfs and command line in one
# program, signed with the key that OVMF's snakeoil variables trust. Kept while it would be made of the same, since objcopy
# writes the time into a program.
make_esp() {
    local kernel=$1 initrd=$2 cmdline=$3 signed=$4 esp=$5 work from
    from=$( (cat "$kernel" "$initrd" "$parts/images.sh" && printf '%s %s' "$cmdline" "$signed") | sha256sum)
    [ "$(cat "$esp.from" 2>/dev/null)" != "$from" ] || return 0
    rm -f "$esp" "$esp.from"
    work=$(mktemp -d "$directory/esp.XXXXXX")
    printf 'ID=rootbound\nNAME="Rootbound test machine"\nVERSION_ID=1\n' > "$work/osrel"
    printf '%s' "$cmdline" > "$work/cmdline"
    objcopy --add-section .osrel="$work/osrel" --change-section-vma .osrel=0x20000 \
        --add-section .cmdline="$work/cmdline" --change-section-vma .cmdline=0x30000 \
        --add-section .linux="$kernel" --change-section-vma .linux=0x2000000 \
        --add-section .initrd="$initrd" --change-section-vma .initrd=0x4000000 \
        /usr/lib/systemd/boot/efi/linuxx64.efi.stub "$work/unsigned.efi"
    if [ "$signed" ]; then
        openssl rsa -in /usr/share/ovmf/PkKek-1-snakeoil.key -passin pass:snakeoil -out "$work/key" 2>/dev/null
        sbsign --key "$work/key" --cert /usr/share/ovmf/PkKek-1-snakeoil.pem --output "$work/uki.efi" \
            "$work/unsigned.efi" 2>/dev/null
    else
        mv "$work/unsigned.efi" "$work/uki.efi"
    fi
    # mtools write no file system of their own into a partition: it is made beside the disk, then copied to its place.
    truncate -s 64M "$work/fat"
    mkfs.vfat -F 32 --invariant -i 526f6f74 "$work/fat" >/dev/null
    mmd -i "$work/fat" ::EFI ::EFI/BOOT
    mcopy -i "$work/fat" -sQm "$work/uki.efi" ::EFI/BOOT/BOOTX64.EFI
    truncate -s 66M "$esp"
    sfdisk -q "$esp" >/dev/null <<END
label: gpt
label-id: 526F6F74-626F-756E-6400-000000000001
start=2048, size=131072, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=526F6F74-626F-756E-6400-000000000002, name=esp
END
    dd if="$work/fat" of="$esp" bs=1M seek=1 conv=notrunc status=none
    rm -rf "$work"
    echo "$from" > "$esp.from"
}
