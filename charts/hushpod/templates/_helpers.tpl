{{- define "hushpod.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hushpod
{{ include "hushpod.webhookSelector" . }}
{{- end }}

{{- define "hushpod.webhookSelector" -}}
app.kubernetes.io/name: hushpod
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end }}

{{- define "hushpod.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Beside the other, unless it says where: they are of one build. */ -}}
{{- define "hushpod.agentImage" -}}
{{- $repository := .Values.agentImage.repository | default (printf "%s-agent" .Values.image.repository) -}}
{{- if .Values.agentImage.digest -}}
{{ $repository }}@{{ .Values.agentImage.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.agentImage.tag | default .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* The operator's configuration; what it says itself stays. (`merge` would take false for nothing.) */ -}}
{{- define "hushpod.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $filled := dict
  "image" (include "hushpod.agentImage" .)
  "imagePullPolicy" (.Values.agentImage.pullPolicy | default .Values.image.pullPolicy)
  "nativeSidecars" (semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version)
-}}
{{- range $field, $value := $filled }}{{ if not (hasKey $config $field) }}{{ $_ := set $config $field $value }}{{ end }}{{ end -}}
{{- toYaml $config }}
{{- end }}

{{- define "hushpod.hasMatchConditions" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- end }}

{{- define "hushpod.hasPolicy" -}}
{{- if and .Values.policy.enabled (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) }}true{{ end }}
{{- end }}

{{- /* Pods that ask for secrets: the webhook's condition and the policy's. */ -}}
{{- define "hushpod.matchConditions" -}}
- name: asks-for-secrets
  expression: >-
    object.metadata.?annotations.orValue({}).exists(k, k.startsWith('hushpod.dev/')) &&
    object.metadata.?annotations[?'hushpod.dev/inject'].orValue('') != 'false'
{{- end }}

{{- define "hushpod.tlsSecret" -}}
{{- if eq .Values.tls.mode "secret" }}{{ required "tls.mode secret needs tls.secret.name" .Values.tls.secret.name }}{{ else }}hushpod-webhook-tls{{ end }}
{{- end }}

{{- /* Seconds from SIGTERM to SIGKILL: the drain, ten seconds for what is in flight, and five to spare. */ -}}
{{- define "hushpod.gracePeriod" -}}
{{- $drain := .Values.webhook.drain -}}
{{- $scale := ternary 60 1 (hasSuffix "m" $drain) -}}
{{- add (mul ($drain | trimSuffix "s" | trimSuffix "m" | int) $scale) 15 }}
{{- end }}
