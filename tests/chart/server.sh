# shellcheck shell=bash
# The part of tests/chart/run that needs an API server; sourced by it.

namespaces=(bundlerun team-a team-b runs course-1 guests platform)
operator=system:serviceaccount:bundlerun:bundle-operator

step "An API server: $(kubectl version -o json | jq -r .serverVersion.gitVersion)"
# All that is made here is deleted in the end: that must be nobody else's.
for object in crd/bundleruns.bundlerun.dev "${namespaces[@]/#/namespace/}"; do
  ! kubectl get "$object" >/dev/null 2>&1 || fail "this cluster is in use: it has $object. Take one for tests, or --cluster NAME"
done
made_namespaces=yes
for namespace in "${namespaces[@]}"; do
  kubectl create namespace "$namespace" >/dev/null
done
# Where the chart's own pods are.
kubectl label namespace bundlerun runs pod-security.kubernetes.io/{enforce,warn}=restricted --overwrite >/dev/null
kubectl apply --server-side -f crds/bundlerun.yaml >/dev/null
kubectl label -f crds/bundlerun.yaml bundlerun.dev/test=chart >/dev/null
# The definitions of the Prometheus operator, from its Go module.
monitoring=$(go -C deploy/local/tools/prometheus-operator mod download -json github.com/prometheus-operator/prometheus-operator | jq -r .Dir)
for kind in servicemonitors podmonitors prometheusrules; do
  file=$monitoring/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml
  ! kubectl get crd "$kind.monitoring.coreos.com" >/dev/null 2>&1 || continue
  kubectl apply --server-side -f "$file" >/dev/null
  kubectl label -f "$file" bundlerun.dev/test=chart >/dev/null
done
kubectl wait --for=condition=Established --timeout=60s crd -l bundlerun.dev/test=chart >/dev/null

step "kubeconform, by the schemas of this server, nothing unknown"
# A file for each kind: KIND-GROUP-VERSION.json; of kinds without a group, kubeconform takes the version for it.
mkdir "$temp/schemas"
for file in "$chart"/ci/*-values.yaml; do cat "$temp/$(basename "$file" -values.yaml).json"; done | jq -r '"\(.apiVersion // empty) \(.kind)"' | sort -u >"$temp/kinds"
cut -d ' ' -f 1 "$temp/kinds" | sort -u | while read -r version; do
  path=apis/$version
  [[ $version == */* ]] || path=api/$version
  kubectl get --raw "/openapi/v3/$path" | jq -c '
    .components |= walk(
      if type == "object" and has("properties") and (has("additionalProperties") or has("x-kubernetes-preserve-unknown-fields") | not)
      then .additionalProperties = false else . end)' >"$temp/openapi"
  while read -r group kind; do
    [[ $group == "$version" ]] || continue
    jq -c --arg kind "$kind" --arg version "$version" '
      first(.components.schemas | to_entries[]
        | select(.value["x-kubernetes-group-version-kind"] // [] | any(.kind == $kind and ([.group, .version] - [""] | join("/")) == $version)).key) as $name
      | {"$ref": "#/components/schemas/\($name)", components}' "$temp/openapi" >"$temp/schemas/${kind,,}-${version%/*}-${version##*/}.json"
  done <"$temp/kinds"
done
for file in "$chart"/ci/*-values.yaml; do
  kind=$(basename "$file" -values.yaml)
  kubeconform -strict -summary -schema-location "$temp/schemas/{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json" \
    "$temp/$kind.yaml" >"$temp/kubeconform" || wrong "kubeconform, $kind: $(cat "$temp/kubeconform")"
  printf '%-28s %s\n' "$kind" "$(tail -n 1 "$temp/kubeconform")"
done

# Installs for real what only says something then; the label is for the clean-up.
install_kinds() {
  jq -c --arg kinds "$2" 'select(.kind | test($kinds)) | .metadata.labels["bundlerun.dev/test"] = "chart"' "$temp/$1.json" |
    kubectl apply --server-side --force-conflicts -f - >/dev/null
}

step "Server-side dry run, nothing unknown, no warning of Pod Security"
for file in "$chart"/ci/*-values.yaml; do
  kind=$(basename "$file" -values.yaml)
  # A pod is refused, even in a dry run, without its service account.
  install_kinds "$kind" '^ServiceAccount$'
  kubectl apply --server-side --force-conflicts --dry-run=server --validate=strict -f "$temp/$kind.yaml" >"$temp/dry-run" 2>&1 ||
    wrong "dry run, $kind: $(grep -v serverside-applied "$temp/dry-run")"
  ! grep -i warning "$temp/dry-run" >&2 || wrong "dry run, $kind: warnings"
done
kubectl kustomize deploy | kubectl apply --server-side --force-conflicts --dry-run=server --validate=strict -f - >"$temp/dry-run" 2>&1 ||
  wrong "dry run, kustomize: $(cat "$temp/dry-run")"

# can USER VERB RESOURCE[/NAME][:SUBRESOURCE] NAMESPACE yes|no
can() {
  local answer place=(--namespace "$4")
  [[ $4 != '*' ]] || place=(--all-namespaces)
  [[ $3 != *:* ]] || place+=(--subresource "${3#*:}")
  answer=$(kubectl auth can-i "$2" "${3%:*}" "${place[@]}" --as="$1" 2>/dev/null) || true
  [[ $answer == "$5" ]] || wrong "may $1 $2 $3 in $4: $answer, not $5"
}

step "Rights: a list of namespaces"
install_kinds namespaced '^(ServiceAccount|Role|RoleBinding)$'
for namespace in team-a team-b; do
  can "$operator" list bundleruns.bundlerun.dev "$namespace" yes
  can "$operator" update bundleruns.bundlerun.dev:status "$namespace" yes
  can "$operator" create pods "$namespace" yes
  can "$operator" get secrets "$namespace" no
  can "$operator" get configmaps "$namespace" no
  can "$operator" get serviceaccounts "$namespace" yes
  can "$operator" list serviceaccounts "$namespace" no
  can "$operator" create serviceaccounts:token "$namespace" no
  can "$operator" create pods:exec "$namespace" no
  can "$operator" create bundleruns.bundlerun.dev "$namespace" no
done
for namespace in runs default '*'; do
  can "$operator" list bundleruns.bundlerun.dev "$namespace" no
  can "$operator" list pods "$namespace" no
done
can "$operator" list nodes '*' no
# The test's account may make a run, where the test is, and nothing else.
can system:serviceaccount:bundlerun:bundle-operator-test create bundleruns.bundlerun.dev team-a yes
can system:serviceaccount:bundlerun:bundle-operator-test create bundleruns.bundlerun.dev team-b no
can system:serviceaccount:bundlerun:bundle-operator-test create pods team-a no
can system:serviceaccount:bundlerun:bundle-operator-release patch pods team-b yes
can system:serviceaccount:bundlerun:bundle-operator-release patch pods runs no
can system:serviceaccount:bundlerun:bundle-operator-release delete pods team-b no
can system:serviceaccount:bundlerun:bundle-operator-release patch deployments.apps/bundle-operator bundlerun yes
can system:serviceaccount:bundlerun:bundle-operator-release patch deployments.apps/other bundlerun no

step "Rights: the whole cluster, with a lease"
install_kinds ha '^(ServiceAccount|Role|RoleBinding|ClusterRole|ClusterRoleBinding)$'
can "$operator" list bundleruns.bundlerun.dev '*' yes
can "$operator" delete pods '*' yes
can "$operator" list nodes '*' yes
definitions=customresourcedefinitions.apiextensions.k8s.io
can "$operator" watch "$definitions/bundleruns.bundlerun.dev" '*' yes
can "$operator" watch "$definitions" '*' no
can "$operator" patch "$definitions/bundleruns.bundlerun.dev" '*' no
can "$operator" get nodes '*' no
can "$operator" get secrets '*' no
can "$operator" list configmaps bundlerun no
can "$operator" update leases.coordination.k8s.io/bundle-operator bundlerun yes
can "$operator" update leases.coordination.k8s.io/other bundlerun no
can "$operator" patch configmaps/bundle-operator-defaults bundlerun yes
can "$operator" patch configmaps/bundle-operator bundlerun no
can "$operator" create leases.coordination.k8s.io bundlerun yes
can "$operator" create leases.coordination.k8s.io team-a no
can "$operator" update deployments.apps '*' no

step "Rights: users by the built-in roles edit and view"
kubectl create rolebinding ann --clusterrole edit --user ann --namespace team-a --dry-run=client -o yaml | kubectl apply -f - >/dev/null
kubectl create rolebinding vera --clusterrole view --user vera --namespace team-a --dry-run=client -o yaml | kubectl apply -f - >/dev/null
# The controller manager adds our rules to the built-in roles within a moment.
wait_for 30 kubectl auth can-i create bundleruns.bundlerun.dev --namespace team-a --as=ann || true
can ann create bundleruns.bundlerun.dev team-a yes
can ann patch bundleruns.bundlerun.dev team-a yes
can ann delete bundleruns.bundlerun.dev team-a yes
can ann update bundleruns.bundlerun.dev:status team-a no
can ann patch bundleruns.bundlerun.dev:status team-a no
can ann create bundleruns.bundlerun.dev team-b no
can ann get secrets/bundle-store team-b no
can ann get configmaps/bundle-operator bundlerun no
can ann get configmaps/bundle-operator-defaults bundlerun yes
can ann update configmaps/bundle-operator-defaults bundlerun no
can vera get bundleruns.bundlerun.dev team-a yes
can vera create bundleruns.bundlerun.dev team-a no
can vera get secrets team-a no

step "Policies"
install_kinds policies '^ValidatingAdmissionPolicy'
# create NAMESPACE SPEC: the API server's answer to such a run.
create() {
  printf '{"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": {"name": "try"}, "spec": %s}' "$2" |
    kubectl create --namespace "$1" --dry-run=server -f - 2>&1 || true
}
guest='{"command": "true", "timeLimit": "1h", "image": "debian:bookworm", "runAsUser": 1000'
# A policy is in force a moment after it was made.
refused() { [[ $(create "$@") == *denied* ]]; }
wait_for 60 refused runs '{"command": "true", "image": "evil", "timeLimit": "1h"}' || wrong "the policy of images is not in force"
wait_for 60 refused course-1 '{"command": "true", "timeLimit": "20h"}' || wrong "the policy of students is not in force"
wait_for 60 refused guests '{"command": "true", "timeLimit": "1h"}' || wrong "the policy of guests is not in force"
wait_for 60 refused runs '{"command": "true"}' || wrong "the policy of time limits is not in force"
while IFS='|' read -r namespace spec expected; do
  namespace=${namespace// /} expected=${expected# }
  [[ $namespace ]] || continue
  answer=$(create "$namespace" "${spec/'$GUEST'/$guest}")
  [[ $answer == *"$expected"* ]] || wrong "$namespace, $spec: $answer"
done <<'END'
runs     | {"command": "true", "timeLimit": "1h"}                                          | created
runs     | {"command": "true", "timeLimit": "1h", "image": "registry.example.com/ml/a:1"}  | created
runs     | {"command": "true", "timeLimit": "1h", "image": "debian:bookworm"}              | created
runs     | {"command": "true", "timeLimit": "1h", "image": "debian:bookworm-slim"}         | spec.image: debian:bookworm-slim is not allowed here; allowed: registry.example.com/ml/, debian:bookworm
runs     | {"command": "true", "timeLimit": "1h", "image": "registry.example.com/mlx/a"}   | is not allowed here
runs     | {"command": "true", "timeLimit": "1h", "resources": {"gpus": 8}}                | created
runs     | {"command": "true"}                                                             | spec.timeLimit: required here
platform | {"command": "true", "timeLimit": "1h", "image": "anything"}                     | created
course-1 | {"command": "true", "timeLimit": "12h30m"}                                      | created
course-1 | {"command": "true", "timeLimit": "45000s", "resources": {"gpus": 1}}            | created
course-1 | {"command": "true", "timeLimit": "45001s"}                                      | spec.timeLimit: at most 12h30m here
course-1 | {"command": "true", "timeLimit": "1d"}                                          | spec.timeLimit: at most 12h30m here
course-1 | {"command": "true", "timeLimit": "12h30m1s"}                                    | spec.timeLimit: at most 12h30m here
course-1 | {"command": "true"}                                                             | spec.timeLimit: required here, at most 12h30m
course-1 | {"command": "true", "timeLimit": "1h", "resources": {"gpus": 2}}                | spec.resources.gpus: at most 1 here
guests   | $GUEST}                                                                         | created
guests   | $GUEST, "serviceAccountName": "guest"}                                          | created
guests   | $GUEST, "serviceAccountName": "admin"}                                          | spec.serviceAccountName: admin is not allowed here; allowed: guest
guests   | $GUEST, "priorityClassName": "high"}                                            | spec.priorityClassName: high is not allowed here; allowed: none
guests   | $GUEST, "gpuProfile": "mig-1g", "resources": {"gpus": 1}}                       | created
guests   | $GUEST, "gpuProfile": "none"}                                                   | created
guests   | $GUEST, "resources": {"gpus": 1}}                                               | spec.gpuProfile: default is not allowed here; allowed: mig-1g
guests   | $GUEST, "imagePullSecrets": [{"name": "registry-login"}], "env": [{"name": "A", "value": "b"}]} | created
guests   | $GUEST, "imagePullSecrets": [{"name": "other"}]}                                | spec.imagePullSecrets: the Secrets other are not allowed here; allowed: registry-login
guests   | $GUEST, "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "other", "key": "a"}}}]} | spec.env: the Secrets other are not allowed here
guests   | $GUEST, "inputs": [{"path": "a", "text": ""}, {"path": "b", "secret": {"name": "other"}}]} | spec.inputs: the Secrets other are not allowed here
guests   | $GUEST, "tolerations": [{"key": "dedicated", "operator": "Exists"}]}            | created
guests   | $GUEST, "tolerations": [{"operator": "Exists"}]}                                | spec.tolerations: only of taints with these keys here: dedicated
guests   | {"command": "true", "timeLimit": "1h"}                                          | spec.runAsUser: required here, at least 1000
guests   | {"command": "true", "timeLimit": "1h", "runAsUser": 999}                        | spec.runAsUser: required here, at least 1000
guests   | $GUEST, "fsGroup": 0}                                                           | spec.fsGroup: at least 1000 here
guests   | $GUEST, "runAsGroup": 0}                                                        | spec.runAsGroup: at least 1000 here
guests   | $GUEST, "podLabels": {"team": "a"}, "podAnnotations": {"example.com/b": "c"}}   | created
guests   | $GUEST, "podLabels": {"app": "a"}}                                              | spec.podLabels: only these keys are allowed here: team, example.com/
guests   | $GUEST, "podAnnotations": {"example.community/b": "c"}}                         | spec.podAnnotations: only these keys
END

step "Who created a run"
install_kinds policies '^MutatingAdmissionPolicy'
# creator VERB [OPTION...]: who the API server says created the run on stdin.
creator() { kubectl "$1" --namespace runs --dry-run=server -o jsonpath='{.metadata.annotations.bundlerun\.dev/created-by}' -f - "${@:2}"; }
run() { printf '{"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": {"name": "made", "annotations": {%s}}, "spec": {"command": "true", "timeLimit": "1h"}}' "${1-}"; }
kubectl create rolebinding ann --clusterrole edit --user ann --namespace runs --dry-run=client -o yaml | kubectl apply -f - >/dev/null
is_ann() { [[ $(run | creator create --as ann) == ann ]]; }
wait_for 60 is_ann || wrong "the policy is not in force: $(run | creator create --as ann)"
forged='"bundlerun.dev/created-by": "bob"'
[[ $(run "$forged" | creator create --as ann) == ann ]] || wrong "a user can say that another one created a run"
run | kubectl create --namespace runs --as ann -f - >/dev/null
[[ $(run "$forged" | creator apply 2>/dev/null) == ann ]] || wrong "who created a run can be changed"
[[ $(kubectl annotate bundlerun made --namespace runs bundlerun.dev/created-by- --dry-run=server -o jsonpath='{.metadata.annotations}') == *ann* ]] ||
  wrong "who created a run can be taken away"
kubectl delete bundlerun made --namespace runs >/dev/null

if [[ ${IMAGE-} ]]; then
  # shellcheck source=installed.sh
  source "$here/installed.sh"
else
  step "Left out: an installation by Helm (--cluster NAME, or IMAGE and STORE)"
fi
