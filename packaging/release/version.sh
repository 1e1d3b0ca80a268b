# shellcheck shell=bash
# Read by the scripts of this folder: what all artifacts have in common.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)

# The time that is written into every artifact: that of the last commit, so that two builds give the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C.UTF-8
# Artifacts are for all to read, whoever made them.
umask 022

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 70
}

# The processor that the file was built for, as Rust calls it.
processor_of() { # FILE
    case $(readelf --file-header "$1") in
        *'X86-64'*) echo x86_64 ;;
        *AArch64*) echo aarch64 ;;
        *) fail "$1 is for a processor that no package is made for" ;;
    esac
}

# The same file must be in every package, and it must run wherever the package can be installed.
static_file() { # FILE
    [ -f "$1" ] || fail "there is no file $1"
    local headers
    headers=$(readelf --program-headers --dynamic --wide "$1")
    ! grep -q -e ' INTERP ' -e '(NEEDED)' <<<"$headers" || fail "$1 is not static"
    [ "$("$1" --version)" = "safeconduct $version" ] || fail "$1 is not safeconduct $version"
}
