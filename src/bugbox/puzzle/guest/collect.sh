#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# collect.sh WORK EPOCH [NEVER...]: turn the upper directory into what a layer's tar should hold.
#
# Overlayfs notes a deletion as a character device 0:0 and a replaced directory as an attribute.
# Here they become the empty files that OCI layers have: .wh.NAME and .wh..wh..opq. Paths that the
# target must lose first go to WORK/scratch/deletions, each followed by a NUL. What a tar cannot carry
# goes to stdout: a kind and a path, each followed by a NUL.
set -euo pipefail
shopt -s dotglob nullglob
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1 epoch=$2
shift 2
base=$work/base
deletions=$work/scratch/deletions

umount "$work/scratch/merged"
cd "$work/scratch/upper"
: >"$deletions"

there() { [ -e "$1" ] || [ -L "$1" ]; }
is_folder() { [ -d "$1" ] && [ ! -L "$1" ]; }

# Change something in a directory and leave the directory's own time as it was.
quietly() {
    local folder=${1%/*}
    shift
    touch --reference="$folder" ../time
    "$@"
    touch --reference=../time "$folder"
}

if reserved=$(find . -name '.wh.*' -print -quit) && [ -n "$reserved" ]; then
    echo "build.sh made $reserved: names that begin with .wh. mean deletions in a layer" >&2
    exit 1
fi

# What never belongs to a layer. The patterns come without a slash in front: anchored by nature.
for pattern in "$@"; do
    while IFS= read -r path; do
        quietly "$path" rm -rf -- "$path"
    done < <(compgen -G "./$pattern" || true)
done

# Deleted names. One that the base never had (it came from the helper) leaves no trace.
while IFS= read -r -d '' path; do
    [ "$(stat -c %t:%T -- "$path")" = 0:0 ] || continue
    quietly "$path" rm -- "$path"
    there "$base/$path" || continue
    printf '%s\0' "$path" >>"$deletions"
    quietly "$path" touch -- "${path%/*}/.wh.${path##*/}"
done < <(find . -type c -print0)

# Directories that hide all the base had there. A new directory has the mark as well; it hides
# nothing and needs none. getfattr writes odd bytes of a name in octal, which %b undoes.
# Overlayfs keeps chattr's +i and +a as an attribute too, since they would bind itself.
while IFS= read -r line; do
    case $line in
    '# file: '*) printf -v path '%b' "${line#'# file: '}" ;;
    trusted.overlay.opaque=*)
        is_folder "$base/$path" || continue
        printf '%s\0' "$path" >>"$deletions"
        quietly "$path/" touch -- "$path/.wh..wh..opq"
        ;;
    trusted.overlay.protattr=*)
        flags=${line#*=\"}
        printf 'flags:%s\0%s\0' "${flags%\"}" "$path"
        ;;
    esac
done < <(find . -mindepth 1 \( -type d -o -type f \) -print0 |
    xargs -0r getfattr --no-dereference --dump --match='^trusted\.overlay\.(opaque|protattr)$' -- \
        2>/dev/null || true)

# The other flags that people set; those that the filesystem sets by itself are no loss. A name may
# hold a newline: what stands behind it is no line of lsattr's. bash sees what grep lets through only:
# it reads byte by byte, which takes its time with thousands of names.
while IFS= read -r line; do
    path=${line#* } flags=${line%% *}
    printf 'flags:%s\0%s\0' "${flags//[-eIEVN]/}" "$path"
done < <(find . -mindepth 1 \( -type d -o -type f \) -print0 | xargs -0r lsattr -d -- 2>/dev/null |
    grep -aE '^[-A-Za-z]{20,24} \./' | grep -avE '^[-eIEVN]+ ' || true)
find . -type s -printf 'socket\0%p\0'

# A file where the base has a directory, or the other way round: tar would not replace it. Where the
# base has no directory, nothing in it can be such.
while IFS= read -r -d '' folder; do
    is_folder "$base/$folder" || continue
    for path in "$folder"/*; do
        there "$base/$path" || continue
        if is_folder "$path"; then is_folder "$base/$path" && continue
        else is_folder "$base/$path" || continue; fi
        printf '%s\0' "$path" >>"$deletions"
    done
done < <(find . -type d -print0)

# What the build wrote gets one fixed time; what came with an older time keeps it exactly.
find . -newer ../start -print0 | xargs -0r touch --no-dereference --date="@$epoch" --
