#!/bin/sh
# Becomes the program in the package of this platform, so that no Node.js process stays beside it. Looks for that package where Node.js
# does: in `node_modules` of this package's folder and of each folder above.
own=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
case $(uname -s)-$(uname -m) in
Linux-x86_64) package=@safeconduct/linux-x64 ;;
Linux-aarch64) package=@safeconduct/linux-arm64 ;;
*)
    echo "safeconduct: error: there is no package for $(uname -s) on $(uname -m)" >&2
    exit 70
    ;;
esac
folder=$own
while :; do
    program=${folder%/}/node_modules/$package/safeconduct
    [ ! -x "$program" ] || exec "$program" "$@"
    [ "$folder" != / ] || break
    folder=$(dirname -- "$folder")
done
echo "safeconduct: error: the package $package is not installed" >&2
echo "  hint: install it, or install safeconduct again without leaving out optional dependencies" >&2
exit 70
