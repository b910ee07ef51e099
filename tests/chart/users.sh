# shellcheck shell=bash
# What users can really do, with real objects; sourced by lifecycle.sh. server.sh bound ann to edit and vera to view in team-a.

step "Users: edit creates and stops, and is refused what is not its own"
kubectl create secret docker-registry bundle-store --namespace course-1 --docker-server=registry.example.com --docker-username=course --docker-password=secret >/dev/null
start course-1 not-anns true
wait_for 30 kubectl auth can-i create bundleruns.bundlerun.dev --namespace team-a --as=ann || wrong "the chart's roles do not reach edit"
bundlerun anns "$until_told" | kubectl create --as ann --namespace team-a -f - >/dev/null || wrong "ann cannot create a run"
in_phase team-a anns Running
ends course-1 not-anns Succeeded 1
# may_not USER COMMAND...: refused for want of rights; one that has them is not.
may_not() {
  local answer
  kubectl "${@:2}" --dry-run=server >/dev/null || wrong "nobody can: ${*:2}"
  answer=$(kubectl "${@:2}" --as "$1" 2>&1) && wrong "$1 can: ${*:2}"
  [[ $answer == *"User \"$1\" cannot "* ]] || wrong "$1, ${*:2}: $answer"
}
may_not_read() {
  local answer
  kubectl get "${@:2}" >/dev/null || wrong "nobody can get ${*:2}"
  answer=$(kubectl get "${@:2}" --as "$1" 2>&1) && wrong "$1 can get ${*:2}"
  [[ $answer == *"User \"$1\" cannot "* ]] || wrong "$1, get ${*:2}: $answer"
}
succeeded='{"status": {"phase": "Succeeded", "reason": "Completed"}}'
stopped='{"spec": {"stop": true}}'
may_not ann patch bundlerun anns --namespace team-a --subresource=status --type merge -p "$succeeded"
defaults() { kubectl get configmap bundle-operator-defaults --namespace bundlerun --as ann -o jsonpath='{.data.defaults\.yaml}'; }
has_profiles() { defaults | grep -q 'resourceName: nvidia.com/gpu'; }
wait_for 60 has_profiles || wrong "a user cannot read which GPU profiles there are: $(defaults 2>&1)"
may_not ann patch bundlerun not-anns --namespace course-1 --type merge -p "$stopped"
may_not ann delete bundlerun not-anns --namespace course-1
may_not_read ann bundleruns --all-namespaces
may_not_read ann secret bundle-store --namespace course-1
may_not_read ann configmap bundle-operator --namespace bundlerun
may_not vera patch bundlerun anns --namespace team-a --type merge -p "$stopped"
may_not vera delete bundlerun anns --namespace team-a
kubectl get bundlerun anns --namespace team-a --as vera >/dev/null || wrong "vera cannot see a run"
# A status beside the spec is not for users: it is dropped.
kubectl patch bundlerun anns --namespace team-a --as ann --type merge -p "$succeeded" >/dev/null || wrong "ann cannot patch her run"
[[ $(of team-a anns .status.phase) == Running ]] || wrong "ann wrote the status of her run"
kubectl patch bundlerun anns --namespace team-a --as ann --type merge -p "$stopped" >/dev/null || wrong "ann cannot stop her run"
ends team-a anns Stopped 1
kubectl delete bundlerun anns --namespace team-a --as ann --timeout=60s >/dev/null || wrong "ann cannot delete her run"
kubectl delete bundlerun not-anns --namespace course-1 --timeout=60s >/dev/null || wrong "a run is not deleted"
