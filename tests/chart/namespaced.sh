# shellcheck shell=bash
# An operator of two namespaces, and what it cannot do elsewhere; sourced by installed.sh.

step "Helm: an operator for some namespaces only"
# Its values file leaves the definition to somebody else.
kubectl apply --server-side --force-conflicts -f crds/bundlerun.yaml >/dev/null
helm install "${release[@]}" "$chart" --values "$chart/ci/namespaced-values.yaml" "${values[@]}" "${wait[@]}" >/dev/null ||
  wrong "helm install: $(kubectl logs --namespace bundlerun deployment/bundle-operator 2>&1 | tail -n 5)"
start runs outside true '{"runAsUser": 1000}'
start course-1 outside true
start team-a inside "$user_and_file"
start team-b in-flight "$until_told"
ends team-a inside Succeeded 1
in_phase team-b in-flight Running
helm test "${release[@]}" --logs --timeout 3m >"$temp/test" || wrong "helm test: $(cat "$temp/test")"
grep -q 'created BundleRun team-a/' "$temp/test" || wrong "helm test does not run in the first namespace: $(cat "$temp/test")"
kubectl delete pod bundle-operator-test --namespace bundlerun >/dev/null
# events_of NAMESPACE NAME: reasons. Events have no labels of ours; that a run that is looked at has some is seen first.
events_of() { kubectl get events --namespace "$1" --field-selector "involvedObject.kind=BundleRun,involvedObject.name=$2" -o jsonpath='{.items[*].reason}'; }
[[ $(events_of team-a inside) ]] || wrong "team-a/inside has no events"
# Runs that were made later have ended, and those were not looked at.
for namespace in runs course-1; do
  [[ $(of "$namespace" outside .status.observedGeneration) == -1 ]] || wrong "$namespace/outside is looked at: $(of "$namespace" outside '.status | tojson')"
  [[ -z $(kubectl get pods --namespace "$namespace" -l bundlerun.dev/run=outside -o name) ]] || wrong "$namespace/outside has a pod"
  [[ -z $(events_of "$namespace" outside) ]] || wrong "$namespace/outside has events: $(events_of "$namespace" outside)"
done

# What the operator itself is told, with its own token.
kubectl config view --raw --minify -o json |
  jq --arg token "$(kubectl create token bundle-operator --namespace bundlerun)" '.users[0].user = {$token}' >"$temp/as-operator"
as_operator() { kubectl --kubeconfig "$temp/as-operator" "$@"; }
refused_operator() {
  local answer
  answer=$(as_operator "$@" 2>&1) && wrong "the operator can: $*"
  [[ $answer == *'User "system:serviceaccount:bundlerun:bundle-operator" cannot '* ]] || wrong "the operator, $*: $answer"
}
for namespace in team-a team-b; do
  as_operator get bundleruns,pods --namespace "$namespace" >/dev/null || wrong "the operator cannot list in $namespace"
  refused_operator get secrets --namespace "$namespace"
  refused_operator get configmaps --namespace "$namespace"
done
refused_operator get bundleruns --all-namespaces
refused_operator get pods --all-namespaces
for namespace in runs course-1 bundlerun default; do
  refused_operator get bundleruns --namespace "$namespace"
  refused_operator get pods --namespace "$namespace"
  refused_operator patch bundlerun outside --namespace "$namespace" --subresource=status --type merge -p '{"status": {"phase": "Failed"}}'
  refused_operator delete pods --all --namespace "$namespace"
  refused_operator create --namespace "$namespace" -f <(printf '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}')
done
nothing_was_forbidden

step "Helm: uninstall it with a run in flight"
helm uninstall "${release[@]}" "${wait[@]}" >/dev/null || wrong "helm uninstall"
[[ -z $(held_pods) ]] || wrong "pods are held by our finalizer: $(held_pods)"
kubectl delete pod in-flight-1 --namespace team-b --timeout=60s >/dev/null || wrong "a pod is stuck"
kubectl delete bundleruns --all-namespaces --all --timeout=60s >/dev/null || wrong "runs are not deleted"
