#!/bin/sh
# Installs software OpenGL (Mesa) on Debian or Ubuntu, which only the comparison with mujoco.Renderer needs.
# Afterwards run with MUJOCO_GL=egl.
set -eu
packages="libegl1 libgl1 libgl1-mesa-dri"
missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
$sudo apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qq -y --no-install-recommends $missing
