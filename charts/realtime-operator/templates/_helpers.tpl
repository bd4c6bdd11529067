{{- define "operator.name" -}}
{{- if contains "realtime-operator" .Release.Name }}{{ .Release.Name | trunc 50 }}{{ else }}{{ printf "%s-realtime-operator" .Release.Name | trunc 50 }}{{ end }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: realtime-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "operator.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What the operator may do with what it owns. Verb by verb: no wildcard, Secrets neither listed nor watched. */}}
{{- define "operator.rules" -}}
- apiGroups: [realtime-operator.dev]
  resources: [realtimeclusters]
  verbs: [get, list, watch]
- apiGroups: [realtime-operator.dev]
  resources: [realtimeclusters/status]
  verbs: [get, patch]
# Owner references that block deletion need this where that admission plugin is on.
- apiGroups: [realtime-operator.dev]
  resources: [realtimeclusters/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [apps]
  resources: [replicasets, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
