{{- define "bundle-operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "bundle-operator.fullname" -}}
{{- $name := include "bundle-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bundle-operator.selector" -}}
app.kubernetes.io/name: {{ include "bundle-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Of objects that are not the operator's own: what a selector of operator pods must not meet. */}}
{{- define "bundle-operator.commonLabels" -}}
app.kubernetes.io/part-of: bundlerun
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "bundle-operator.labels" -}}
{{ include "bundle-operator.selector" . }}
{{ include "bundle-operator.commonLabels" . }}
{{- end -}}

{{/* Lines of annotations, ours and the values': dict "root" $ "more" (a map). */}}
{{- define "bundle-operator.annotations" -}}
{{- $all := merge (dict) (.more | default dict) .root.Values.annotations -}}
{{- if $all }}
  annotations:
    {{- toYaml $all | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "bundle-operator.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "bundle-operator.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "bundle-operator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "bundle-operator.leaderElection" -}}
{{- if or .Values.leaderElection.enabled (gt (int .Values.replicas) 1) }}true{{ end -}}
{{- end -}}

{{/* The namespace that `helm test` uses. */}}
{{- define "bundle-operator.testNamespace" -}}
{{- .Values.test.namespace | default (first (append .Values.namespaces .Release.Namespace)) -}}
{{- end -}}

{{/* The pod of a hook: everything but its service account and containers. */}}
{{- define "bundle-operator.hookPod" -}}
restartPolicy: Never
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{- define "bundle-operator.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The settings file. What is empty is left out: the operator has its own defaults, and no store is no store. */}}
{{- define "bundle-operator.settings" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- if and .Values.evaluationRegistry.enabled (not $settings.store.url) -}}
{{- $url := printf "oci://%s-registry.%s.svc:5000/bundles" (include "bundle-operator.fullname" .) .Release.Namespace -}}
{{- $_ := set $settings "store" (merge (dict "url" $url "insecure" true) $settings.store) -}}
{{- /* Nodes resolve no names of Services. */ -}}
{{- $_ := set $settings "imageVolumes" "never" -}}
{{- end -}}
{{- if not $settings.store.background.bandwidth }}{{ $_ := unset $settings.store.background "bandwidth" }}{{ end -}}
{{- if not $settings.store.url }}{{ $_ := unset $settings "store" }}{{ end -}}
{{- range list "insecure" "ca" -}}
{{- if not (get $settings.registries .) }}{{ $_ := unset $settings.registries . }}{{ end -}}
{{- end -}}
{{- range list "http" "https" "noProxy" -}}
{{- if not (get $settings.proxy .) }}{{ $_ := unset $settings.proxy . }}{{ end -}}
{{- end -}}
{{- range list "labels" "annotations" -}}
{{- if not (get $settings.pods .) }}{{ $_ := unset $settings.pods . }}{{ end -}}
{{- end -}}
{{- if not $settings.helper.resources }}{{ $_ := unset $settings "helper" }}{{ end -}}
{{- range list "pods" "registries" "proxy" "gpuProfiles" -}}
{{- if not (get $settings .) }}{{ $_ := unset $settings . }}{{ end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{- define "bundle-operator.ports" -}}
- name: health
  containerPort: 8080
{{- end -}}

{{/* A list of texts in CEL. Their schema lets no quotes and backslashes through. */}}
{{- define "bundle-operator.celList" -}}
[{{ range $i, $text := . }}{{ if $i }}, {{ end }}'{{ $text }}'{{ end }}]
{{- end }}
