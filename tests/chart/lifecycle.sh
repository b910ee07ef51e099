# shellcheck shell=bash
# From the installation to the removal of the chart as it is here; sourced by installed.sh.

step "Helm: install, in a namespace with Pod Security restricted"
helm install "${release[@]}" "$chart" "${values[@]}" "${wait[@]}" --set-json "settings.gpuProfiles=$(<"$here/gpu-profiles.json")" >"$temp/notes" ||
  wrong "helm install: $(kubectl logs --namespace bundlerun deployment/bundle-operator 2>&1 | tail -n 5)"
grep -q 'A first run' "$temp/notes" || wrong "the notes do not say what is next"
# The first run of the notes, as they stand; here no run may be beside the operator.
sed -n '/kubectl create --namespace/,/^     END$/p' "$temp/notes" | sed 's/^     //; s/--namespace bundlerun/--namespace team-a/' >"$temp/first-run"
bash -euo pipefail "$temp/first-run" >/dev/null || wrong "the first run of the notes is refused"
ends team-a first Succeeded 1

step "Helm: test, also where Pod Security is restricted"
helm test "${release[@]}" --logs --timeout 3m >"$temp/test" || wrong "helm test: $(cat "$temp/test")"
grep -q 'created BundleRun bundlerun/smoke-test-' "$temp/test" || wrong "helm test ran elsewhere: $(cat "$temp/test")"
grep -q 'its record has what its command said' "$temp/test" || wrong "helm test says nothing of its record: $(cat "$temp/test")"
[[ -z $(kubectl get bundleruns --namespace bundlerun -o name) ]] || wrong "helm test leaves a run"
# Its pod stays for its log, and Helm forgets it.
kubectl delete pod bundle-operator-test --namespace bundlerun >/dev/null || wrong "the pod of helm test is not there for its log"

# shellcheck source=pod-security.sh
source "$here/pod-security.sh"
# shellcheck source=users.sh
source "$here/users.sh"
# shellcheck source=monitoring.sh
source "$here/monitoring.sh"
nothing_was_forbidden 3

step "Helm: settings that are wrong leave the operator that there is"
mistake='{"resourceName": "a.b/c", "driver": {"hostPath": {"path": "/a", "mountPath": "/usr/lib"}}}'
helm upgrade "${release[@]}" "$chart" --reuse-values --set-json "settings.gpuProfiles.mistaken=$mistake" >/dev/null || wrong "the schema refuses what the test needs"
told='gpuProfiles.mistaken.driver.hostPath.mountPath: "/usr/lib" would cover'
why() { kubectl get pods --namespace bundlerun -l app.kubernetes.io/name=bundle-operator -o jsonpath='{.items[*].status.containerStatuses[*].lastState.terminated.message}{.items[*].status.containerStatuses[*].state.terminated.message}' | tr -d '\\'; }
is_told() { [[ $(why) == *"$told"* ]]; }
wait_for 120 is_told || wrong "the new operator does not say what is wrong: $(why)"
start team-a despite-a-mistake true
ends team-a despite-a-mistake Succeeded 1
kubectl get configmap bundle-operator --namespace bundlerun -o jsonpath='{.data.settings\.yaml}' >"$temp/settings.yaml"
kubectl delete bundlerun despite-a-mistake --namespace team-a --timeout=60s >/dev/null || wrong "a run is not deleted"
check_settings() { target/static/bundle-operator check-settings -; }
[[ $(check_settings <"$temp/settings.yaml" 2>&1) == *"$told"* ]] || wrong "check-settings does not say what is wrong"
helm rollback "${release[@]}" 1 "${wait[@]}" >/dev/null || wrong "helm rollback"
kubectl get configmap bundle-operator --namespace bundlerun -o jsonpath='{.data.settings\.yaml}' | check_settings >"$temp/meaning" || wrong "settings that hold are refused"
grep -q '^GPU profiles: broken (nvidia.com/gpu), default (nvidia.com/gpu)' "$temp/meaning" || wrong "check-settings does not say what they mean: $(cat "$temp/meaning")"

step "GitOps: applied again, changed, replaced, pruned"
from_git() { bundlerun from-git "echo $1" | kubectl apply --server-side --namespace team-a -f -; }
record() { of team-a from-git '[.metadata.uid, .status] | tojson'; }
from_git one >/dev/null
ends team-a from-git Succeeded 1
first=$(record)
from_git one >/dev/null || wrong "it cannot be applied again"
answer=$(from_git two 2>&1) && wrong "what a run says was changed"
[[ $answer == *'create a run with another name'*'kubectl replace --force'*'Force=true,Replace=true'* ]] || wrong "the refusal does not name the way out: $answer"
has_looked team-a
[[ $(record) == "$first" ]] || wrong "to apply a run again changed its record"
bundlerun from-git 'echo two' >"$temp/two.json"
kubectl replace --force --namespace team-a -f "$temp/two.json" >/dev/null || wrong "it cannot be replaced by force"
ends team-a from-git Succeeded 1
[[ $(record) != "$first" ]] || wrong "a run that was replaced did not run anew"
kubectl delete bundlerun from-git --namespace team-a --timeout=60s >/dev/null || wrong "a run is not deleted"
wait_for 60 bash -c '[[ -z $(kubectl get pods --namespace team-a -l bundlerun.dev/run=from-git -o name) ]]' || wrong "the pod of a deleted run is left"

step "Helm: uninstall with runs in flight"
# In each way that a run can go on without an operator, and one whose namespace goes.
for run in goes-on ends-alone loses-its-pod; do start team-a "$run" "$until_told"; done
start course-1 in-a-namespace-that-goes "$until_told"
start team-a waits 'cat input/told' '{"inputs": [{"path": "input", "run": {"name": "goes-on"}}]}'
for run in goes-on ends-alone loses-its-pod; do in_phase team-a "$run" Running; done
in_phase course-1 in-a-namespace-that-goes Running
wait_for 60 bash -c "[[ \$(kubectl get bundlerun waits --namespace team-a -o jsonpath='{.status.waiting.reason}') ]]" || wrong "a run does not say that it waits for its input"
goes_on=$(pod_uid team-a goes-on) ends_alone=$(pod_uid team-a ends-alone)
[[ $(held_pods | wc -l) == 4 ]] || wrong "not all pods of runs are held: $(held_pods)"
before=$(records team-a runs platform)
[[ $before ]] || wrong "there are no records to compare"
uids() { kubectl get bundleruns --all-namespaces -o json | jq -c '[.items[].metadata.uid] | sort'; }
runs_before=$(uids)
operator_pod=$(operator_pods)
kubectl get pods --all-namespaces --watch --output-watch-events -o json >"$temp/watched" &
watch=$!
wait_for 30 grep -q "\"name\": *\"${operator_pod#pod/}\"" "$temp/watched" || wrong "the watch sees no operator"
helm uninstall "${release[@]}" "${wait[@]}" >/dev/null || wrong "helm uninstall"
# Helm waits for what it deletes, not for the pods of it.
kubectl wait pods --namespace bundlerun --all --for=delete --timeout=60s >/dev/null || wrong "the operator's pod does not end"
all_let_go() { [[ $(jq -r 'select(.type == "MODIFIED").object.metadata | select(.labels["bundlerun.dev/run-uid"] and .finalizers == null).name' "$temp/watched" | sort -u | wc -l) == 4 ]]; }
wait_for 30 all_let_go || wrong "the watch does not see four pods that are let go"
kill "$watch"
# One stream of events has the order in which they happened: none is let go before the operator has ended.
jq -rs --arg operator "${operator_pod#pod/}" '
  def let_go: .type == "MODIFIED" and .object.metadata.labels["bundlerun.dev/run-uid"] and .object.metadata.finalizers == null;
  def over: .object.metadata.name == $operator and (.type == "DELETED" or (.object.status.phase | IN("Succeeded", "Failed")));
  map(if let_go then "let go" elif over then "over" else empty end) | "\(index("over")) \(index("let go"))"' "$temp/watched" >"$temp/order"
read -r over let_go <"$temp/order"
[[ $over != null && $let_go != null ]] && ((over < let_go)) || wrong "pods were let go before the operator had ended: $over, $let_go"
left=$(kubectl get all,configmap,secret,serviceaccount,role,rolebinding --all-namespaces -o name -l app.kubernetes.io/part-of=bundlerun,app.kubernetes.io/managed-by=Helm | tr '\n' ' ')
[[ -z $left ]] || wrong "left behind: $left"
[[ -z $(kubectl get clusterrole,clusterrolebinding -l app.kubernetes.io/part-of=bundlerun -o name) ]] || wrong "rights are left behind"
kubectl get crd bundleruns.bundlerun.dev >/dev/null || wrong "the definition is gone"
[[ $(uids) == "$runs_before" ]] || wrong "runs are gone"
[[ -z $(held_pods) ]] || wrong "pods are held by our finalizer: $(held_pods)"

step "Nothing is stuck without an operator"
kubectl delete pod loses-its-pod-1 --namespace team-a --timeout=60s >/dev/null || wrong "a pod is stuck"
kubectl delete namespace course-1 --timeout=90s >/dev/null || wrong "a namespace with a run in flight is stuck"
kubectl create namespace course-1 >/dev/null
let_end team-a ends-alone
kubectl wait pod ends-alone-1 --namespace team-a --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s >/dev/null || wrong "a pod does not end without an operator"
[[ $(kubectl get pod goes-on-1 --namespace team-a -o jsonpath='{.status.phase}') == Running ]] || wrong "a run in flight did not go on"

step "Helm: install again"
helm install "${release[@]}" "$chart" "${values[@]}" "${wait[@]}" >/dev/null || wrong "helm install again"
# Both were running when nobody looked: one has ended by itself since, one has lost its pod, which is an interruption.
started_once team-a ends-alone "$ends_alone"
in_phase team-a goes-on Running
wait_for 60 kubectl get pod loses-its-pod-2 --namespace team-a || wrong "a run that has lost its pod is not tried again"
in_phase team-a loses-its-pod Running
[[ $(pod_uid team-a goes-on) == "$goes_on" ]] || wrong "a run in flight has another pod"
let_end team-a goes-on
started_once team-a goes-on "$goes_on"
ends team-a waits Succeeded 1
kubectl patch bundlerun loses-its-pod --namespace team-a --type merge -p '{"spec": {"stop": true}}' >/dev/null || wrong "a run cannot be stopped"
ends team-a loses-its-pod Stopped 2
has_looked team-a
after=$(records team-a runs platform)
[[ -z $(comm -23 <(sort <<<"$before") <(sort <<<"$after")) ]] || wrong "records of before changed: $(diff <(sort <<<"$before") <(sort <<<"$after"))"
nothing_was_forbidden
no_runs

step "Removed by hand, as the guide says"
start team-a by-hand "$until_told"
in_phase team-a by-hand Running
block sh | awk '/^kubectl delete deployment/ { text = "" } { text = text $0 "\n" } /^ *done/ { printf "%s", text; exit }' >"$temp/by-hand"
bash -euo pipefail "$temp/by-hand" >/dev/null || wrong "the guide's commands fail"
[[ -z $(held_pods) ]] || wrong "finalizers are left: $(held_pods)"
kubectl delete pods --namespace team-a -l bundlerun.dev/run=by-hand --timeout=60s >/dev/null || wrong "a pod is stuck"
helm uninstall "${release[@]}" --no-hooks "${wait[@]}" >/dev/null || wrong "helm uninstall --no-hooks"
kubectl delete bundleruns --all-namespaces --all --timeout=60s >/dev/null || wrong "runs are not deleted without an operator"
