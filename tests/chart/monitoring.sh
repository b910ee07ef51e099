# shellcheck shell=bash
# A real Prometheus reads the operator's metrics, and answers every query of the alerts and the dashboard; sourced by
# lifecycle.sh.

if [[ ! $cluster ]]; then
  step "Left out: Prometheus, which runs in the network of a local cluster (--cluster)"
  return
fi

# Built as a Go module it has no other version than the module's.
version=$(go version -m "$(realpath "$temp/bin/prometheus")" | awk '$2 == "github.com/prometheus/prometheus" { print $3 }')
[[ $version == v* ]] || wrong "the version of Prometheus is not known: $version"
step "Prometheus: $version reads the operator's Service"
service=$(kubectl get service bundle-operator-metrics --namespace bundlerun -o jsonpath='{.spec.clusterIP}')
mkdir "$temp/prometheus"
cp "$chart/files/rules.yaml" "$temp/prometheus/"
jq -n --arg target "$service:8080" '{
  global: {scrape_interval: "1s", evaluation_interval: "1s"}, rule_files: ["rules.yaml"],
  scrape_configs: [{job_name: "bundle-operator", static_configs: [{targets: [$target]}]}]}' >"$temp/prometheus/prometheus.yaml"
deploy/local/cluster inside --name "$cluster" "$temp/bin/prometheus" --config.file "$temp/prometheus/prometheus.yaml" \
  --storage.tsdb.path "$temp/prometheus/data" --web.listen-address "$NODE_IP:9090" --web.enable-lifecycle >"$temp/prometheus/log" 2>&1 &
prometheus=$!
api() { curl -sS --max-time 20 "http://$NODE_IP:9090/api/v1/$1" "${@:2}"; }
query() { api query --data-urlencode "query=$1"; }
# value QUERY: the one number that it has.
value() { query "$1" | jq -r '.data.result[0].value[1]'; }
is_up() { [[ $(value 'up{job="bundle-operator"}') == 1 ]]; }
wait_for 60 is_up || wrong "Prometheus cannot read the metrics: $(api targets | jq -c '[.data.activeTargets[] | .lastError]') $(tail -n 3 "$temp/prometheus/log")"
ended_before=$(value 'sum(bundlerun_completions_total)')

step "Prometheus: runs of each kind"
start team-a kept 'seq 1000 >numbers'
start team-a fails 'exit 3'
start team-a lasts "$until_told"
start team-a depends true '{"inputs": [{"path": "input", "run": {"name": "lasts"}}]}'
start team-a interrupted "$until_told"
start team-a on-gpus 'sleep 2' '{"resources": {"gpus": 2}}'
start team-a without-driver true '{"resources": {"gpus": 1}, "gpuProfile": "broken"}'
in_phase team-a interrupted Running
kubectl delete pod interrupted-1 --namespace team-a --wait=false >/dev/null
wait_for 60 kubectl get pod interrupted-2 --namespace team-a || wrong "a run is not tried again"
in_phase team-a interrupted Running
let_end team-a interrupted 2
ends team-a interrupted Succeeded 2
ends team-a kept Succeeded 1
ends team-a fails Failed 1
ends team-a on-gpus Succeeded 1
ends team-a without-driver Failed 4
in_phase team-a lasts Running
has_read() { (($(value 'sum(bundlerun_completions_total)') >= ended_before + 5)); }
wait_for 60 has_read || wrong "Prometheus sees $(value 'sum(bundlerun_completions_total)') ended runs, not $((ended_before + 5))"

step "Prometheus: every query has data, or a reason for none"
# Of an alert the comparison would hide what it compares: it is made to answer 0 or 1.
{
  jq -c '.panels[] | .title as $title | .targets[]?.expr | {from: "dashboard, \($title)", expr: .}' "$chart/files/dashboard.json"
  chart-check json <"$chart/files/rules.yaml" | jq -c '.groups[].rules[] | {from: .alert, expr: (.expr | gsub(" (?<c>>=|==|>) "; " \(.c) bool "))}'
} >"$temp/asked"
# A first line says why, a second one which: with "?" it may have data, with the same right.
declare -A none=() either=()
while read -r reason && read -r name; do
  none[${name%\?}]=${reason#\# }
  [[ $name != *\? ]] || either[${name%\?}]=1
done < <(grep -v '^$' "$here/queries-without-data")
not_asked=$(jq -rs --arg names "${!none[*]}" '[.[].from] as $asked | $names | split(" ")[] | select(IN($asked[]) | not)' "$temp/asked")
[[ -z $not_asked ]] || wrong "queries-without-data names what is not asked: $not_asked"
with=0 without=0
while read -r asked; do
  from=$(jq -r .from <<<"$asked") expr=$(jq -r .expr <<<"$asked")
  query "$expr" >"$temp/answer"
  if [[ $(jq -r .status "$temp/answer") != success ]]; then
    wrong "$from: $(jq -r .error "$temp/answer"): $expr"
  elif jq -e '[.data.result[] | select(.value[1] != "NaN")] != []' "$temp/answer" >/dev/null; then
    with=$((with + 1))
    [[ ! ${none[$from]-} || ${either[$from]-} ]] || wrong "$from has data, though it should have none: $expr"
  elif [[ ${none[$from]-} ]]; then
    without=$((without + 1))
    echo "no data: $from: ${none[$from]}"
  else
    wrong "$from has no data: $expr: $(cat "$temp/answer")"
  fi
done <"$temp/asked"
echo "$with queries with data, $without without"

step "Prometheus: the alerts"
api rules | jq -c '.data.groups[].rules[]' >"$temp/alerts"
[[ $(jq -s length "$temp/alerts") == $(grep -c 'alert:' "$chart/files/rules.yaml") ]] || wrong "Prometheus has not all rules"
jq -r 'select(.health != "ok") | "\(.name): \(.lastError)"' "$temp/alerts" >"$temp/unwell"
[[ ! -s $temp/unwell ]] || wrong "rules that cannot be evaluated: $(cat "$temp/unwell")"
# Three attempts found no driver; nothing else is wrong.
[[ $(jq -r 'select(.state != "inactive").name' "$temp/alerts") == BundleRunsWithoutGpu ]] ||
  wrong "these alerts are active: $(jq -r 'select(.state != "inactive") | "\(.name) \(.state)"' "$temp/alerts" | tr '\n' ' ')"
# What the numbers say is what happened.
while IFS='|' read -r expr expected; do
  is=$(value "$expr")
  [[ $is == "$expected" ]] || wrong "$expr is $is, not $expected"
done <<'END'
bundlerun_runs{phase="Waiting"}|1
bundlerun_runs{phase="Running"}|1
bundlerun_attempts_retried_total{cause="PodDeleted"}|1
bundlerun_attempts_retried_total{cause="GpuUnavailable"}|3
bundlerun_completions_total{phase="Failed",cause="GpuUnavailable",blame="Platform"}|1
bundlerun_completions_total{phase="Failed",cause="CommandFailed",blame="User"}|1
sum(bundlerun_gpu_seconds_total) >= bool 4|1
bundlerun_saved_bytes_total >= bool 3893|1
leader_election_master_status|1
bundlerun_invalid_objects|0
END
curl -sS -X POST "http://$NODE_IP:9090/-/quit" >/dev/null
wait "$prometheus" || wrong "Prometheus ended badly: $(tail -n 3 "$temp/prometheus/log")"
let_end team-a lasts
ends team-a depends Succeeded 1
