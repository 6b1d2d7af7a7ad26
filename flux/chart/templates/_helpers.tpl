{{- define "secretweave.labels" -}}
app.kubernetes.io/name: secretweave
app.kubernetes.io/component: flux-controller
{{- end }}

{{- define "secretweave.meta" -}}
labels:
  {{- include "secretweave.labels" . | nindent 2 }}
  app.kubernetes.io/instance: {{ .Release.Name }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "secretweave.configuration" -}}
{{- $spec := deepCopy .Values.configuration -}}
{{- if not $spec.operatorNamespace }}{{ $_ := set $spec "operatorNamespace" .Release.Namespace }}{{ end -}}
{{- dict "apiVersion" "secretweave.dev/v1alpha1" "kind" "Configuration" "spec" $spec | toYaml -}}
{{- end }}
