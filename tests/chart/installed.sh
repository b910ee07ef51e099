# shellcheck shell=bash
# The parts of tests/chart/run that install by Helm, with the operator's image in IMAGE; sourced by server.sh.
# RUN_IMAGE is an image with a shell, STORE the URL of a registry that speaks plain HTTP: the cluster must reach both.
# In `cluster` is the name of the local cluster, if it is one.

run_image=${RUN_IMAGE:-localhost:5000/debian:bookworm}
: "${STORE:?IMAGE needs STORE=oci://HOST:PORT/PREFIX too}"
release=(bundle-operator --namespace bundlerun)
wait=(--wait --timeout 3m)
values=(--set "image.repository=${IMAGE%@*}" --set "image.digest=${IMAGE#*@}"
  --set "settings.images.cpu=$run_image" --set "settings.images.gpu=$run_image"
  --set "settings.store.url=$STORE" --set settings.store.insecure=true --set settings.stopGrace=5s)

# bundlerun NAME COMMAND [MORE-OF-SPEC]: its manifest.
bundlerun() {
  jq -n --arg name "$1" --arg command "$2" --argjson more "${3:-{\}}" '{apiVersion: "bundlerun.dev/v1alpha1", kind: "BundleRun",
    metadata: {$name}, spec: ({$command, resources: {cpus: "50m", memory: "64Mi", disk: "100Mi", sharedMemory: "1Mi"}} * $more)}'
}
# start NAMESPACE NAME COMMAND [MORE-OF-SPEC]
start() { bundlerun "${@:2}" | kubectl create --namespace "$1" -f - >/dev/null || wrong "$2 is refused"; }
# A command that goes on until `let_end NAMESPACE NAME [ATTEMPT]`.
until_told='echo started; until [ -e told ]; do sleep 0.1; done; echo ended'
let_end() { kubectl exec --namespace "$1" "$2-${3:-1}" --container run -- touch /bundle/told || wrong "$2 cannot be told to end"; }
# of NAMESPACE NAME JQ: from a run.
of() { kubectl get bundlerun "$2" --namespace "$1" -o json | jq -r "$3"; }
# in_phase NAMESPACE NAME PHASE: awaits it.
in_phase() {
  kubectl wait bundlerun "$2" --namespace "$1" --for=jsonpath='{.status.phase}'="$3" --timeout=120s >/dev/null ||
    wrong "$2 does not become $3: $(of "$1" "$2" '.status | tojson')"
}
# ends NAMESPACE NAME PHASE ATTEMPT
ends() {
  local state
  kubectl wait bundlerun "$2" --namespace "$1" --for=jsonpath='{.status.finishTime}' --timeout=120s >/dev/null ||
    wrong "$2 does not end: $(of "$1" "$2" '.status | tojson')"
  state=$(of "$1" "$2" '"\(.status.phase) \(.status.attempt)"')
  [[ $state == "$3 $4" ]] || wrong "$2 ended as $state, not as $3 $4: $(of "$1" "$2" .status.message)"
}
# started_once NAMESPACE NAME POD-UID: the run has ended, in that pod, and its command ran in it from begin to end, once.
started_once() {
  ends "$1" "$2" Succeeded 1
  local ran
  ran=$(of "$1" "$2" '.status | [(.attempts | length), .attempts[0].uid, .output.stdoutTail, .output.bundle != null] | tojson')
  [[ $ran == "$(jq -nc --arg uid "$3" '[1, $uid, "started\nended\n", true]')" ]] || wrong "$2, of pod $3, did not run once from begin to end: $ran"
}
pod_uid() { kubectl get pod "$2-1" --namespace "$1" -o jsonpath='{.metadata.uid}'; }
# records NAMESPACE...: what is written of all runs there that have ended.
records() {
  local namespace
  for namespace in "$@"; do
    kubectl get bundleruns --namespace "$namespace" -o json | jq -cS '.items[] | select(.status.finishTime) | [.metadata.uid, .metadata.generation, .spec, .status]'
  done
}
# The operator of now has looked at all that was there before: a run that is made later has ended.
looked=0
has_looked() {
  looked=$((looked + 1))
  start "$1" "later-$looked" true
  ends "$1" "later-$looked" Succeeded 1
  kubectl delete bundlerun "later-$looked" --namespace "$1" --timeout=60s >/dev/null || wrong "later-$looked is not deleted"
}
operator_pods() { kubectl get pods --namespace bundlerun -l app.kubernetes.io/name=bundle-operator -o name; }
# Pods that our finalizer holds.
held_pods() {
  kubectl get pods --all-namespaces -l bundlerun.dev/run-uid -o json |
    jq -r '.items[] | select(.metadata.finalizers // [] | any(. == "bundlerun.dev/record")).metadata.name'
}
# nothing_was_forbidden [PODS]: the operator's log and numbers tell of nothing that it was not allowed, but for so many
# pods that Pod Security refused.
nothing_was_forbidden() {
  local told pods=${1:-0}
  told=$(kubectl logs --namespace bundlerun deployment/bundle-operator | grep -iE 'cannot .* (resource|API group)|unauthorized') || true
  [[ -z $told ]] || wrong "the operator was refused something: $told"
  kubectl get --raw /api/v1/namespaces/bundlerun/services/bundle-operator-metrics:metrics/proxy/metrics >"$temp/exposition" || wrong "no metrics"
  grep -q '^rest_client_requests_total{.*code="20' "$temp/exposition" || wrong "the numbers count no requests"
  told=$(awk -v pods="$pods" '/^rest_client_requests_total\{.*code="40[13]"/ && !($0 ~ /method="POST"/ && $NF == pods)' "$temp/exposition")
  [[ -z $told ]] || wrong "the operator was refused something: $told"
}
no_runs() {
  kubectl delete bundleruns --all-namespaces --all --timeout=60s >/dev/null || wrong "runs are not deleted"
  wait_for 60 bash -c '[[ -z $(kubectl get pods --all-namespaces -l bundlerun.dev/run-uid -o name) ]]' || wrong "pods of deleted runs are left"
}
# The local cluster's registry answers nobody, and then again; images that a node has need none.
registry_is() {
  local pid
  read -r pid _ <"$(dirname "$KUBECONFIG")/run/registry.status"
  deploy/local/cluster inside --name "$cluster" kill "-$1" "$pid"
}

kubectl delete crd,validatingadmissionpolicy,validatingadmissionpolicybinding,mutatingadmissionpolicy,mutatingadmissionpolicybinding,clusterrole,clusterrolebinding -l bundlerun.dev/test=chart >/dev/null
kubectl delete serviceaccount,role,rolebinding --all-namespaces -l bundlerun.dev/test=chart >/dev/null

# shellcheck source=lifecycle.sh
source "$here/lifecycle.sh"
# shellcheck source=upgrade.sh
source "$here/upgrade.sh"
# shellcheck source=namespaced.sh
source "$here/namespaced.sh"

# The clean-up takes it away.
kubectl label crd bundleruns.bundlerun.dev bundlerun.dev/test=chart >/dev/null
