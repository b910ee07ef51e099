# shellcheck shell=bash
# Which runs fit which level of Pod Security, and what their users are told; sourced by lifecycle.sh.

step "Pod Security: runs in namespaces at the levels baseline and restricted"
kubectl label namespace platform pod-security.kubernetes.io/enforce=baseline --overwrite >/dev/null
# refused_by NAMESPACE NAME LEVEL WORDS HINT: the run ends, and says by which rule and what its user can do.
refused_by() {
  ends "$1" "$2" Failed 1
  local told
  told=$(of "$1" "$2" '.status | [.reason, .result.cause, .result.blame] | join(" ")')
  [[ $told == "PodSecurity PodSecurity Policy" ]] || wrong "$1/$2 has reason, cause and blame $told"
  told=$(of "$1" "$2" .status.message)
  [[ $told == *"violates PodSecurity \"$3:"* && $told == *"$4"* ]] || wrong "$1/$2 is told: $told"
  told=$(of "$1" "$2" .status.result.hint)
  [[ $told == *"$5"* ]] || wrong "$1/$2 gets the hint: $told"
  [[ -z $(kubectl get pods --namespace "$1" -l "bundlerun.dev/run=$2" -o name) ]] || wrong "$1/$2 has a pod"
}
user_and_file='id -u; echo kept >file; ls -ln file'
start runs without-user "$user_and_file"
start runs as-root "$user_and_file" '{"runAsUser": 0}'
start runs as-1000 "$user_and_file" '{"runAsUser": 1000}'
start platform without-user "$user_and_file"
start platform as-root "$user_and_file" '{"runAsUser": 0}'
start platform as-1000 "$user_and_file" '{"runAsUser": 1000}'
start platform driver-of-the-host true '{"resources": {"gpus": 1}, "gpuProfile": "host"}'
refused_by runs without-user restricted runAsNonRoot 'set runAsUser, such as 1000, in a new run'
refused_by runs as-root restricted runAsNonRoot 'set runAsUser to another user than 0, such as 1000, in a new run'
refused_by platform driver-of-the-host baseline hostPath 'privileged'
for run in runs/as-1000 platform/without-user platform/as-root platform/as-1000; do
  ends "${run%/*}" "${run#*/}" Succeeded 1
  [[ $(of "${run%/*}" "${run#*/}" .status.output.bundle) == *@sha256:* ]] || wrong "$run is not saved"
done
[[ $(of runs as-1000 .status.output.stdoutTail) == 1000$'\n'* ]] || wrong "runs/as-1000 runs as another user: $(of runs as-1000 .status.output.stdoutTail)"
