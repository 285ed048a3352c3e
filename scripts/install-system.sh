#!/bin/sh
# Installs, on Debian or Ubuntu, what some tests need of the system: `opengl`, software OpenGL (Mesa) for the comparison
# with mujoco.Renderer (run it with MUJOCO_GL=egl afterwards); `chromium`, a browser for the viewer.
#     sh scripts/install-system.sh opengl chromium
set -eu
missing=""
for what in "$@"; do
    case "$what" in
        opengl) packages="libegl1 libgl1 libgl1-mesa-dri" ;;
        chromium) packages="chromium" ;;
        *) echo "install-system.sh: opengl or chromium, not $what" >&2; exit 2 ;;
    esac
    for package in $packages; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
    done
done
[ -z "$missing" ] && exit 0
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
$sudo apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qq -y --no-install-recommends $missing
