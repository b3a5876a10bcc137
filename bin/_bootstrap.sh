# Sourced by every program in bin/: finds or installs the pinned Deno and names the cache.
# Exports: JIJI_ROOT (checkout), JIJI_CACHE (prepared things, outside the checkout), DENO, PATH.
DENO_VERSION=2.9.6
JIJI_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
JIJI_CACHE=${JIJI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/jiji}
export JIJI_ROOT JIJI_CACHE DENO_VERSION

jiji_install_deno() {
  local target=$JIJI_CACHE/deno/$DENO_VERSION stage
  command -v npm >/dev/null || {
    echo "bin: needs Deno $DENO_VERSION on PATH, or npm to install it" >&2
    return 1
  }
  echo "Installing Deno $DENO_VERSION into $target" >&2
  mkdir -p "$JIJI_CACHE/deno"
  stage=$(mktemp -d "$JIJI_CACHE/deno/stage.XXXXXX")
  (cd "$stage" && npm install --silent --no-audit --no-fund --prefix "$stage" "deno@$DENO_VERSION" \
    >npm.log 2>&1) || { cat "$stage/npm.log" >&2; rm -rf "$stage"; return 1; }
  mkdir -p "$stage/out/bin"
  cp "$(ls "$stage"/node_modules/@deno/*/deno | head -n 1)" "$stage/out/bin/deno"
  # Renamed into place, so that a killed or parallel run never leaves half an installation.
  mv -T "$stage/out" "$target" 2>/dev/null || [ -x "$target/bin/deno" ]
  rm -rf "$stage"
}

if [ -x "$JIJI_CACHE/deno/$DENO_VERSION/bin/deno" ]; then
  DENO=$JIJI_CACHE/deno/$DENO_VERSION/bin/deno
elif command -v deno >/dev/null && [ "$(deno --version | awk 'NR==1{print $2}')" = "$DENO_VERSION" ]; then
  DENO=$(command -v deno)
else
  jiji_install_deno || exit 1
  DENO=$JIJI_CACHE/deno/$DENO_VERSION/bin/deno
fi
export DENO
export DENO_NO_UPDATE_CHECK=1
case ":$PATH:" in
  *":$(dirname "$DENO"):"*) ;;
  *) PATH=$(dirname "$DENO"):$PATH; export PATH ;;
esac
