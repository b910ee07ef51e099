# shellcheck shell=bash
# The part of tests/chart/run that installs by Helm, with the operator's image in IMAGE; sourced by server.sh.
# RUN_IMAGE is an image with a shell that the cluster can pull. WITHOUT_SUBCOMMANDS=1 leaves out what needs the image's
# subcommands `release` and `smoke-test`.

run_image=${RUN_IMAGE:-localhost:5000/debian:bookworm}
release=(bundle-operator --namespace bundlerun)
values=(--set "image.repository=${IMAGE%@*}" --set "image.digest=${IMAGE#*@}"
  --set "settings.images.cpu=$run_image" --set "settings.images.gpu=$run_image" --set test.namespace=team-a --wait --timeout 3m)
[[ ! ${WITHOUT_SUBCOMMANDS-} ]] || values+=(--set releasePods.enabled=false)

# start NAMESPACE NAME COMMAND [MORE-OF-SPEC]
start() {
  jq -n --arg name "$2" --arg command "$3" --argjson more "${4:-{\}}" '{apiVersion: "bundlerun.dev/v1alpha1", kind: "BundleRun",
    metadata: {$name}, spec: ({$command, resources: {cpus: "100m", memory: "128Mi"}} + $more)}' |
    kubectl create --namespace "$1" -f - >/dev/null
}
# ends NAMESPACE NAME PHASE ATTEMPT
ends() {
  local state
  kubectl wait bundlerun "$2" --namespace "$1" --for=jsonpath='{.status.finishTime}' --timeout=120s >/dev/null ||
    wrong "$2 does not end: $(kubectl get bundlerun "$2" --namespace "$1" -o jsonpath='{.status}')"
  state=$(kubectl get bundlerun "$2" --namespace "$1" -o jsonpath='{.status.phase} {.status.attempt}')
  [[ $state == "$3 $4" ]] || wrong "$2 ended as $state, not as $3 $4: $(kubectl get bundlerun "$2" --namespace "$1" -o jsonpath='{.status.message}')"
}
runs() { kubectl wait bundlerun "$2" --namespace "$1" --for=jsonpath='{.status.phase}'=Running --timeout=60s >/dev/null || wrong "$2 does not run"; }

step "Helm: install, in a namespace with Pod Security restricted"
kubectl delete crd,validatingadmissionpolicy,validatingadmissionpolicybinding,clusterrole,clusterrolebinding -l bundlerun.dev/test=chart >/dev/null
kubectl delete serviceaccount,role,rolebinding --all-namespaces -l bundlerun.dev/test=chart >/dev/null
helm install "${release[@]}" "$chart" "${values[@]}" >"$temp/notes" || wrong "helm install: $(kubectl logs --namespace bundlerun deployment/bundle-operator 2>&1 | tail -n 5)"
grep -q 'A first run' "$temp/notes" || wrong "the notes do not say what is next"
# The first run of the notes, as they stand.
sed -n '/kubectl create --namespace/,/^     END$/p' "$temp/notes" | sed 's/^     //; s/--namespace bundlerun/--namespace team-a/' >"$temp/first-run"
bash -euo pipefail "$temp/first-run" >/dev/null || wrong "the first run of the notes is refused"
ends team-a first Succeeded 1
start runs restricted 'id -u' '{"runAsUser": 1000}'
ends runs restricted Succeeded 1

step "Helm: test"
if [[ ${WITHOUT_SUBCOMMANDS-} ]]; then
  echo "left out"
else
  helm test "${release[@]}" --logs --timeout 3m || wrong "helm test"
  # Its pod stays for its log, and Helm forgets it.
  kubectl delete pod bundle-operator-test --namespace bundlerun >/dev/null
fi

step "Helm: upgrade and rollback with a run in flight"
pod=$(kubectl get pods --namespace bundlerun -l app.kubernetes.io/name=bundle-operator -o name)
start team-a upgraded 'sleep 25; echo done'
runs team-a upgraded
helm upgrade "${release[@]}" "$chart" "${values[@]}" --set settings.stopGrace=20s >/dev/null || wrong "helm upgrade"
[[ $(kubectl get pods --namespace bundlerun -l app.kubernetes.io/name=bundle-operator -o name) != "$pod" ]] || wrong "the operator has not read its new settings"
helm rollback "${release[@]}" 1 --wait --timeout 3m >/dev/null || wrong "helm rollback"
ends team-a upgraded Succeeded 1

step "Helm: uninstall with a run in flight, install again"
start team-a orphaned 'sleep 600'
runs team-a orphaned
before=$(kubectl get bundlerun first upgraded --namespace team-a -o json | jq -cS '[.items[] | [.metadata.uid, .status]]')
helm uninstall "${release[@]}" --wait --timeout 3m >/dev/null || wrong "helm uninstall"
# Helm waits for what it deletes, not for the pods of it.
kubectl wait pods --namespace bundlerun --all --for=delete --timeout=60s >/dev/null || wrong "the operator's pod does not end"
left=$(kubectl get all,configmap,secret,serviceaccount,role,rolebinding --all-namespaces -o name -l app.kubernetes.io/part-of=bundlerun,app.kubernetes.io/managed-by=Helm | tr '\n' ' ')
[[ -z $left ]] || wrong "left behind: $left"
[[ -z $(kubectl get clusterrole,clusterrolebinding -l app.kubernetes.io/part-of=bundlerun -o name) ]] || wrong "rights are left behind"
kubectl get crd bundleruns.bundlerun.dev >/dev/null || wrong "the definition is gone"
[[ $before == "$(kubectl get bundlerun first upgraded --namespace team-a -o json | jq -cS '[.items[] | [.metadata.uid, .status]]')" ]] || wrong "records changed"
if [[ ! ${WITHOUT_SUBCOMMANDS-} ]]; then
  held=$(kubectl get pods --all-namespaces -l bundlerun.dev/run-uid -o json | jq -r '.items[] | select(.metadata.finalizers // [] | any(. == "bundlerun.dev/record")).metadata.name')
  [[ -z $held ]] || wrong "pods are held by our finalizer: $held"
  kubectl delete pods --namespace team-a -l bundlerun.dev/run=orphaned --timeout=60s >/dev/null || wrong "a pod is stuck"
fi
helm install "${release[@]}" "$chart" "${values[@]}" >/dev/null || wrong "helm install again"
kubectl patch bundlerun orphaned --namespace team-a --type merge -p '{"spec": {"stop": true}}' >/dev/null || wrong "a run cannot be stopped"
kubectl wait bundlerun orphaned --namespace team-a --for=jsonpath='{.status.phase}'=Stopped --timeout=120s >/dev/null || wrong "the run of before is not taken up again"
[[ $before == "$(kubectl get bundlerun first upgraded --namespace team-a -o json | jq -cS '[.items[] | [.metadata.uid, .status]]')" ]] || wrong "finished runs were touched"

step "GitOps: applied again, changed, replaced, pruned"
run() { printf '{"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": {"name": "from-git"}, "spec": {"command": "echo %s", "resources": {"cpus": "100m", "memory": "128Mi"}}}' "$1"; }
record() { kubectl get bundlerun from-git --namespace team-a -o json | jq -cS '[.metadata.uid, .status]'; }
kubectl apply --server-side --namespace team-a -f <(run one) >/dev/null
ends team-a from-git Succeeded 1
first=$(record)
kubectl apply --server-side --namespace team-a -f <(run one) >/dev/null || wrong "it cannot be applied again"
answer=$(kubectl apply --server-side --namespace team-a -f <(run two) 2>&1) && wrong "what a run says was changed"
[[ $answer == *'create a run with another name'*'Force=true,Replace=true'* ]] || wrong "the refusal does not name the way out: $answer"
sleep 3
[[ $(record) == "$first" ]] || wrong "to apply a run again changed its record"
run two >"$temp/two.json"
kubectl replace --force --namespace team-a -f "$temp/two.json" >/dev/null || wrong "it cannot be replaced by force"
ends team-a from-git Succeeded 1
[[ $(record) != "$first" ]] || wrong "a run that was replaced did not run anew"
kubectl delete bundleruns --all-namespaces --all --timeout=60s >/dev/null || wrong "runs are not deleted"
wait_for 60 bash -c '[[ -z $(kubectl get pods --all-namespaces -l bundlerun.dev/run-uid -o name) ]]' || wrong "pods of deleted runs are left"

step "Removed by hand, as the guide says"
start team-a by-hand 'sleep 600'
runs team-a by-hand
block sh | awk '/^kubectl delete deployment/ { text = "" } { text = text $0 "\n" } /^ *done/ { printf "%s", text; exit }' >"$temp/by-hand"
bash -euo pipefail "$temp/by-hand" >/dev/null || wrong "the guide's commands fail"
[[ -z $(kubectl get pods --all-namespaces -l bundlerun.dev/run-uid -o jsonpath='{.items[*].metadata.finalizers}') ]] || wrong "finalizers are left"
kubectl delete pods --namespace team-a -l bundlerun.dev/run=by-hand --timeout=60s >/dev/null || wrong "a pod is stuck"
helm uninstall "${release[@]}" --no-hooks --wait --timeout 3m >/dev/null || wrong "helm uninstall --no-hooks"
kubectl label crd bundleruns.bundlerun.dev bundlerun.dev/test=chart >/dev/null
