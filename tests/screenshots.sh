#!/usr/bin/env bash
# Pictures of a page in headless Chromium, for a person to look at: on a desk and on a phone, light and
# dark. Fails if the page is wider than the phone.
# usage: tests/screenshots.sh PAGE.html OUT_DIR      (apt install chromium fonts-dejavu-core)
set -euo pipefail
page=$(realpath "${1:?usage: screenshots.sh PAGE.html OUT_DIR}")
out=$(mkdir -p "${2:?usage: screenshots.sh PAGE.html OUT_DIR}" && realpath "$2")
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT

# browse WIDTH HEIGHT URL FLAGS...
browse() {
  local width=$1 height=$2 url=$3
  shift 3
  chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
    --window-size="$width,$height" "$@" "$url" 2>/dev/null
}

# Chromium has no window narrower than 500 pixels: the phone is a frame in a page of our own, which also
# says how wide and high the page in it became.
frame() {
  cat >"$profile/frame.html" <<HTML
<body style="margin:0"><iframe id="f" style="border:0;width:$1px;height:$2px" src="file://$page"></iframe>
<script>document.getElementById("f").onload = e => { const d = e.target.contentDocument.documentElement;
document.title = d.scrollWidth + " " + d.scrollHeight; };</script></body>
HTML
}

for width in 1280 360; do
  frame $width 800
  size=$(browse 1400 900 "file://$profile/frame.html" --allow-file-access-from-files --dump-dom |
    sed -n 's/.*<title>\([0-9]* [0-9]*\)<.*/\1/p')
  read -r wide high <<<"$size"
  [ "$wide" -le "$width" ] || { echo "screenshots.sh: $wide pixels wide in a window of $width" >&2; exit 1; }
  frame $width "$high"
  for scheme in light dark; do
    flags=()
    [ $scheme = dark ] && flags=(--blink-settings=preferredColorScheme=0)
    [ $scheme = light ] && flags=(--blink-settings=preferredColorScheme=1)
    browse $((width < 500 ? 500 : width)) "$high" "file://$profile/frame.html" "${flags[@]}" \
      --allow-file-access-from-files --screenshot="$out/$width-$scheme.png" >/dev/null
  done
  echo "$width: $wide x $high"
done
