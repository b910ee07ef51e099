# shellcheck shell=bash
# Images without a Docker daemon: layers are tar files in the cache, an image is an OCI
# layout of such layers and a config, pushed by crane when the registry lacks it.
# Everything is deterministic: the same content has the same digest.

# shellcheck source=../lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
IMAGES_DIR=$LOCAL_DIR/images
LAYERS=$CACHE/layers

# layer KEY_INPUT FUNCTION ARGUMENTS...: runs FUNCTION DIR ARGUMENTS to fill a folder and
# keeps it as a layer; sets LAYER to its folder in the cache. Runs once per KEY_INPUT.
layer() {
  local input=$1 maker=$2 temp
  shift 2
  LAYER=$LAYERS/$(printf '%s\n%s\n%s' "$input" "$*" "$(declare -f "$maker" pack)" | sha256sum | cut -c1-16)
  [[ -d $LAYER ]] && return
  temp=$LAYER.making
  rm -rf --one-file-system "$temp"
  mkdir -p "$temp/root"
  chmod 755 "$temp/root"
  "$maker" "$temp/root" "$@"
  pack "$temp"
  mv "$temp" "$LAYER"
}

# pack LAYER: root/ becomes layer.tar.gz, with the digests of both forms.
pack() {
  tar --create --sort=name --mtime=@0 --numeric-owner --format=gnu --directory "$1/root" --file "$1/layer.tar" .
  sha256sum <"$1/layer.tar" | cut -d' ' -f1 >"$1/diff-id"
  gzip -n -1 "$1/layer.tar"
  sha256sum <"$1/layer.tar.gz" | cut -d' ' -f1 >"$1/digest"
  rm -rf --one-file-system "$1/root"
}

# push_image NAME:TAG CONFIG LAYER...: CONFIG is the JSON of the image's `config` field.
# Sets DIGEST.
push_image() {
  local reference=$REGISTRY/$1 config=$2 layout=$CACHE/layout name=$1 layer diff_ids='[]' layers='[]'
  shift 2
  rm -rf "$layout"
  mkdir -p "$layout/blobs/sha256"
  for layer in "$@"; do
    ln "$layer/layer.tar.gz" "$layout/blobs/sha256/$(<"$layer/digest")"
    diff_ids=$(jq -c --arg id "sha256:$(<"$layer/diff-id")" '. + [$id]' <<<"$diff_ids")
    layers=$(jq -c --arg digest "sha256:$(<"$layer/digest")" --argjson size "$(stat -c %s "$layer/layer.tar.gz")" \
      '. + [{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: $digest, size: $size}]' <<<"$layers")
  done
  blob() { # TYPE: stores standard input, prints its descriptor
    local file=$layout/blob digest size
    cat >"$file"
    digest=$(sha256sum <"$file" | cut -d' ' -f1) size=$(stat -c %s "$file")
    mv "$file" "$layout/blobs/sha256/$digest"
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%d}' "$1" "$digest" "$size"
  }
  local config_descriptor manifest
  config_descriptor=$(jq -cn --argjson config "$config" --argjson ids "$diff_ids" \
    '{architecture: "amd64", os: "linux", created: "1970-01-01T00:00:00Z", config: $config, rootfs: {type: "layers", diff_ids: $ids}}' |
    blob application/vnd.oci.image.config.v1+json)
  manifest=$(jq -cn --argjson config "$config_descriptor" --argjson layers "$layers" \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: $layers}' |
    blob application/vnd.oci.image.manifest.v1+json)
  printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  jq -cn --argjson manifest "$manifest" '{schemaVersion: 2, manifests: [$manifest]}' >"$layout/index.json"
  DIGEST=$(jq -r .digest <<<"$manifest")
  if [[ $(registry_digest "$name") != "$DIGEST" ]]; then
    "$CRANE" push --insecure "$layout" "$reference" >/dev/null 2>"$layout/log" ||
      fail "pushing $reference: $(cat "$layout/log")"
    say "pushed $name"
  fi
  rm -rf "$layout"
}

# registry_digest NAME:TAG: what the registry has under this name; empty when nothing.
registry_digest() {
  curl -sfI -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
    "http://$REGISTRY/v2/${1%:*}/manifests/${1#*:}" |
    tr -d '\r' | awk 'tolower($1) == "docker-content-digest:" { print $2 }'
}
