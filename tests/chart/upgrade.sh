# shellcheck shell=bash
# From an earlier commit's chart to this one, back and again, with runs in flight; sourced by installed.sh.

# earlier_commit: the newest commit whose chart is another than the one here. None: a clone without history, or no clone.
earlier_commit() {
  local commit
  for commit in ${PREVIOUS:-$(git rev-list --max-count=50 HEAD -- "$chart" 2>/dev/null)}; do
    git diff --quiet "$commit" -- "$chart" || { echo "$commit" && return; }
  done
  return 1
}

if ! commit=$(earlier_commit); then
  step "Left out: an upgrade from an earlier chart. No commit at hand has another one than this: fetch some history"
else
  step "Helm: upgrade from the chart of $(git log -1 --format='%h (%s)' "$commit"), back and again, with runs in flight"
  mkdir "$temp/earlier"
  git archive "$commit" "$chart" | tar x -C "$temp/earlier"
  earlier=$temp/earlier/$chart
  # The operator is of this commit. It starts nothing under a definition that lacks a field of it (tests/cluster/skew.rs), and
  # needs its own rights: the earlier chart gets both from this one, and a column tells the definitions apart.
  cp "$chart/templates/rbac.yaml" "$earlier/templates/rbac.yaml"
  column='{"name": "EARLIER", "type": "string", "jsonPath": ".metadata.uid"}'
  chart-check json <"$chart/files/crd.yaml" | jq ".spec.versions[0].additionalPrinterColumns += [$column]" >"$temp/crd" && mv "$temp/crd" "$earlier/files/crd.yaml"
  definition_is() {
    local columns
    columns=$(kubectl get crd bundleruns.bundlerun.dev -o json | jq -c '.spec.versions[0] | [.schema, .additionalPrinterColumns]' | jq -S .)
    diff <(echo "$columns") <(chart-check json <"$1/files/crd.yaml" | jq -c '.spec.versions[0] | [.schema, .additionalPrinterColumns]' | jq -S .) >"$temp/diff" ||
      wrong "$2, the definition is not the chart's: $(head -n 20 "$temp/diff")"
  }
  helm install "${release[@]}" "$earlier" "${values[@]}" "${wait[@]}" >/dev/null || wrong "the earlier chart is not installed"
  definition_is "$earlier" "before the upgrade"

  # A run in each state that lasts.
  start team-a finished 'echo done'
  start team-a failed 'exit 3'
  start team-a running "$until_told"
  start team-a waiting 'cat input/stdout' '{"inputs": [{"path": "input", "run": {"name": "running"}}]}'
  start team-a unplaced "$until_told" '{"nodeSelector": {"bundlerun.dev/test": "later"}}'
  in_phase team-a running Running
  in_phase team-a unplaced Pending
  states=$'running Running\nwaiting Waiting\nunplaced Pending'
  if [[ $cluster ]]; then
    start team-a saving "$until_told"
    in_phase team-a saving Running
  fi
  ends team-a finished Succeeded 1
  ends team-a failed Failed 1
  if [[ $cluster ]]; then
    registry_is STOP
    let_end team-a saving
    in_phase team-a saving Finalizing
    states+=$'\nsaving Finalizing'
  else
    echo "left out: a run that is being saved, which needs a registry that can be stopped (--cluster)"
  fi
  declare -A uid=()
  while read -r run _; do
    [[ $run == waiting ]] || uid[$run]=$(pod_uid team-a "$run")
  done <<<"$states"
  finished=$(records team-a)
  [[ $(wc -l <<<"$finished") == 2 ]] || wrong "not two records: $finished"

  # nothing_changed WHEN: no run is in another state or another pod, no record is another.
  nothing_changed() {
    local run state is
    while read -r run state; do
      is=$(of team-a "$run" '"\(.status.phase) \(.status.attempt // 1)"')
      [[ $is == "$state 1" ]] || wrong "$1, $run is $is, not $state 1"
      [[ ! ${uid[$run]-} || $(pod_uid team-a "$run") == "${uid[$run]}" ]] || wrong "$1, $run has another pod"
    done <<<"$states"
    [[ $(records team-a) == "$finished" ]] || wrong "$1, records are not what they were"
  }
  # replaced WHEN: another pod of the operator, which has looked at the runs in flight: its queue is empty.
  replaced() {
    [[ $(operator_pods) != "$pod" ]] || wrong "$1, the operator is the same: it has not read its new settings"
    pod=$(operator_pods)
    wait_for 60 bash -c "kubectl get --raw /api/v1/namespaces/bundlerun/services/bundle-operator-metrics:metrics/proxy/metrics |
      awk '/^workqueue_depth/ { depth = \$2 } /^workqueue_adds_total/ { adds = \$2 } END { exit !(adds >= 5 && depth == 0) }'" || wrong "$1, the operator does not look at the runs"
  }
  pod=$(operator_pods)
  helm upgrade "${release[@]}" "$chart" "${values[@]}" "${wait[@]}" --set settings.stopGrace=20s >/dev/null || wrong "helm upgrade"
  replaced "after the upgrade"
  definition_is "$chart" "after the upgrade"
  nothing_changed "after the upgrade"
  helm rollback "${release[@]}" 1 "${wait[@]}" >/dev/null || wrong "helm rollback"
  replaced "after the rollback"
  definition_is "$earlier" "after the rollback"
  nothing_changed "after the rollback"
  # With the switch off the definition stays as it is, and so do all runs: it is not taken away with what rendered it.
  helm upgrade "${release[@]}" "$chart" "${values[@]}" "${wait[@]}" --set crds.install=false --set settings.stopGrace=20s >/dev/null || wrong "helm upgrade, crds.install=false"
  replaced "after the upgrade with crds.install=false"
  definition_is "$earlier" "after the upgrade with crds.install=false"
  nothing_changed "after the upgrade with crds.install=false"
  helm upgrade "${release[@]}" "$chart" "${values[@]}" "${wait[@]}" --set settings.stopGrace=20s >/dev/null || wrong "helm upgrade, crds.install=true"
  definition_is "$chart" "after the switch was turned on"

  # None is lost, none ran twice.
  [[ ! $cluster ]] || registry_is CONT
  let_end team-a running
  kubectl label nodes --all bundlerun.dev/test=later >/dev/null
  in_phase team-a unplaced Running
  let_end team-a unplaced
  for run in "${!uid[@]}"; do started_once team-a "$run" "${uid[$run]}"; done
  kubectl label nodes --all bundlerun.dev/test- >/dev/null
  ends team-a waiting Succeeded 1
  [[ $(of team-a waiting .status.output.stdoutTail) == started$'\n'ended ]] || wrong "waiting has another input: $(of team-a waiting .status.output.stdoutTail)"
  [[ -z $(comm -23 <(sort <<<"$finished") <(records team-a | sort)) ]] || wrong "records of before changed"
  nothing_was_forbidden
  no_runs
  helm uninstall "${release[@]}" "${wait[@]}" >/dev/null || wrong "helm uninstall"
fi
