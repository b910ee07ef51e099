# shellcheck shell=bash
# Builds the tools from Go modules into the cache, each once.
#
# One folder under tools/ is one Go module whose `tool` lines name what to build and
# whose go.sum pins it. The cache key covers everything that decides the binaries.

# What a cluster needs. tests/chart/run sets others: helm, kubeconform, promtool, prometheus, chart-check.
TOOLS=(supervisor fake-gpu fake-nvidia-runtime etcd runc cni containerd registry crane oras kubernetes coredns)

# tool_settings TOOL: sets dir, packages, cgo, tags and ldflags for one tool.
tool_settings() {
  dir=$LOCAL_DIR/tools/$1 packages=tool cgo=0 tags='' ldflags='-s -w'
  local version
  case $1 in
    supervisor | fake-* | chart-check) dir=$LOCAL_DIR/$1 packages=. ;;
    # libseccomp is a C library.
    runc) cgo=1 tags=seccomp ;;
    # Snapshotters that need more libraries and that nobody asks for here.
    containerd) tags='no_btrfs no_zfs no_devmapper no_aufs' ;;
    # The clients of two dozen clouds, for service discovery, that nobody needs here.
    promtool | prometheus) tags=remove_all_sd ;;
    kubernetes)
      # Without these everything says v0.0.0, in its version and as a user agent.
      version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$dir/go.mod")
      local package major minor
      IFS=. read -r major minor _ <<<"${version#v}"
      for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        ldflags+=" -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
      done
      ;;
  esac
}

# tool_cache TOOL: prints the folder of its binaries for the current settings.
tool_cache() {
  local dir packages cgo tags ldflags key
  tool_settings "$1"
  key=$({
    go version
    echo "$packages $cgo $tags $ldflags"
    find "$dir" -maxdepth 1 \( -name '*.go' -o -name go.mod -o -name go.sum \) -print0 | sort -z | xargs -0 cat
  } | sha256sum | cut -c1-16)
  echo "$CACHE/tools/$1-$key"
}

build_tool() {
  local tool=$1 target=$2 dir packages cgo tags ldflags temp=$2.building
  tool_settings "$tool"
  rm -rf "$temp"
  mkdir -p "$temp"
  # -buildvcs: the binaries must not depend on this repository's commits.
  if ! (cd "$dir" && CGO_ENABLED=$cgo GOWORK=off GOFLAGS=-mod=readonly \
    go build -trimpath -buildvcs=false -tags "$tags" -ldflags "$ldflags" -o "$temp/" "$packages"); then
    fail "building $tool in $dir failed (output above)"
  fi
  # Its main package is the root of the module etcd/server/v3.
  [[ $tool == etcd ]] && mv "$temp/server" "$temp/etcd"
  mv "$temp" "$target"
}

build_missing_tools() {
  local tool target missing=() n=0 started
  for tool in "${TOOLS[@]}"; do
    [[ -d $(tool_cache "$tool") ]] || missing+=("$tool")
  done
  for tool in "${missing[@]}"; do
    n=$((n + 1)) started=$SECONDS target=$(tool_cache "$tool")
    say "building $tool ($n of ${#missing[@]})"
    build_tool "$tool" "$target"
    say "built $tool in $((SECONDS - started)) s"
  done
}

build_tools() {
  local tool
  for tool in "${TOOLS[@]}"; do
    if [[ ! -d $(tool_cache "$tool") ]]; then
      with_lock build build_missing_tools
      return
    fi
  done
}

# link_tools FOLDER: one folder with all the binaries.
link_tools() {
  local tool
  mkdir -p "$1"
  for tool in "${TOOLS[@]}"; do
    ln -sf "$(tool_cache "$tool")"/* "$1/"
  done
}
