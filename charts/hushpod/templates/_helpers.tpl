{{- define "hushpod.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hushpod
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /*
The field `annotations` of metadata: those of the object, and commonAnnotations beside them. Arguments: the root, and the
object's own.
*/ -}}
{{- define "hushpod.annotations" -}}
{{- with merge (dict) (index . 1 | default dict) ((index . 0).Values.commonAnnotations | default dict) -}}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Labels by the name of their template, and more, which win: each once. Arguments: the root, the name, the more. */ -}}
{{- define "hushpod.labelsWith" -}}
{{- toYaml (merge (dict) (index . 2 | default dict) (include (index . 1) (index . 0) | fromYaml)) -}}
{{- end }}

{{- define "hushpod.labels" -}}
{{ include "hushpod.commonLabels" . }}
{{ include "hushpod.webhookSelector" . }}
{{- end }}

{{- define "hushpod.webhookSelector" -}}
app.kubernetes.io/name: hushpod
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end }}

{{- define "hushpod.csiLabels" -}}
{{ include "hushpod.commonLabels" . }}
{{ include "hushpod.csiSelector" . }}
{{- end }}

{{- define "hushpod.csiSelector" -}}
app.kubernetes.io/name: hushpod
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: csi
{{- end }}

{{- define "hushpod.testLabels" -}}
{{ include "hushpod.commonLabels" . }}
app.kubernetes.io/name: hushpod
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "hushpod.daemonSet" -}}
{{ printf "%s/%s" (include "hushpod.csiNamespace" . | trim) "hushpod-csi" }}
{{- end }}

{{- /*
What helm takes away for a null (`csi:` with nothing but comments behind it), or does not have yet, and what cannot be
nothing. tests/integration/chart_values.rs goes through values.yaml.
*/ -}}
{{- define "hushpod.check" -}}
{{- $needed := list
  "image" "image.pullPolicy" "agentImage" "config"
  "tls" "tls.mode" "tls.certManager" "tls.secret"
  "webhook" "webhook.port" "webhook.adminPort" "webhook.twin" "webhook.timeoutSeconds" "webhook.drain" "webhook.logLevel" "webhook.logFormat"
  "webhook.objectSelector" "policy" "policy.enabled"
  "etcdSecrets" "etcdSecrets.enabled" "etcdSecrets.action" "etcdSecrets.namespaceSelector" "etcdSecrets.volumes"
  "csi" "csi.enabled" "csi.image" "csi.createNamespace" "csi.kubeletRoot" "csi.startupTaint" "csi.updateStrategy" "csi.openshift"
  "csi.logLevel" "csi.logFormat"
  "replicaCount" "revisionHistoryLimit" "hostNetwork"
  "podDisruptionBudget" "podDisruptionBudget.enabled" "podDisruptionBudget.unhealthyPodEvictionPolicy"
  "service" "serviceAccount" "serviceAccount.create" "rbac" "rbac.create"
  "networkPolicy" "networkPolicy.enabled" "networkPolicy.egress" "networkPolicy.egress.enabled" "networkPolicy.egress.apiServerPorts"
  "test" "test.namespace" "roles" "roles.create" "roles.aggregate"
  "metrics" "metrics.podMonitor" "metrics.podMonitor.enabled" "metrics.podMonitor.interval" "metrics.podMonitor.agents"
  "metrics.rules" "metrics.rules.enabled" "metrics.rules.runbookUrl" "metrics.dashboard" "metrics.dashboard.enabled"
-}}
{{- $missing := list -}}
{{- range $path := $needed -}}
{{- $value := $.Values -}}
{{- range splitList "." $path -}}
{{- $value = ternary (get ($value | default dict) .) nil (and (kindIs "map" $value) (hasKey ($value | default dict) .)) -}}
{{- end -}}
{{- $is_told := false -}}
{{- range $missing }}{{ if hasPrefix (printf "%s." .) $path }}{{ $is_told = true }}{{ end }}{{ end -}}
{{- if and (kindIs "invalid" $value) (not $is_told) -}}{{- $missing = append $missing $path -}}{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- fail (printf "%s: nothing is there, since null takes away what values.yaml has: leave the name out, or write a value. If there is no null in your values, they are those of an older chart (helm upgrade --reuse-values): use --reset-then-reuse-values, or --values with your own" (join ", " $missing)) -}}
{{- end -}}
{{- $selector := .Values.webhook.objectSelector -}}
{{- if not (or (include "hushpod.hasMatchConditions" .) (get $selector "matchLabels") (get $selector "matchExpressions")) -}}
{{- fail "webhook.objectSelector: nothing is there, so every pod of the cluster would wait for the webhook: before Kubernetes 1.30 it needs matchLabels or matchExpressions" -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- if and (kindIs "invalid" $budget.minAvailable) (has (toString $budget.maxUnavailable) (list "" "<nil>")) -}}
{{- fail "podDisruptionBudget.minAvailable: nothing is there: write it or maxUnavailable, or enabled: false" -}}
{{- end -}}
{{- end }}

{{- define "hushpod.csiNamespace" -}}
{{ .Values.csi.namespace | default .Release.Namespace }}
{{- end }}

{{- /* A repository, in global.imageRegistry if there is one. Arguments: the root, and the repository. */ -}}
{{- define "hushpod.repository" -}}
{{- $repository := index . 1 -}}
{{- $registry := get ((index . 0).Values.global | default dict) "imageRegistry" -}}
{{- if $registry -}}
{{- /* What is a registry's name, and no part of a path: as containerd reads it. */ -}}
{{- $parts := splitList "/" $repository -}}
{{- $first := first $parts -}}
{{- if and (gt (len $parts) 1) (or (contains "." $first) (contains ":" $first) (eq "localhost" $first)) -}}
{{- $repository = rest $parts | join "/" -}}
{{- end -}}
{{ trimSuffix "/" $registry }}/{{ $repository }}
{{- else -}}
{{ $repository }}
{{- end }}
{{- end }}

{{- define "hushpod.imageRepository" -}}
{{- required "image.repository is not set: there is no public image yet, so say where yours is; deploy/README.md builds it" .Values.image.repository -}}
{{- end }}

{{- define "hushpod.image" -}}
{{- $repository := include "hushpod.repository" (list . (include "hushpod.imageRepository" .)) -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ $repository }}@{{ .digest }}
{{- else -}}
{{ $repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Beside the other, unless it says where: they are of one build. */ -}}
{{- define "hushpod.agentImage" -}}
{{- $repository := .Values.agentImage.repository | default (printf "%s-agent" (include "hushpod.imageRepository" .)) -}}
{{- $repository = include "hushpod.repository" (list . $repository) -}}
{{- if .Values.agentImage.digest -}}
{{ $repository }}@{{ .Values.agentImage.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.agentImage.tag | default .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "hushpod.csiImage" -}}
{{- $image := .Values.csi.image -}}
{{- $repository := $image.repository | default (printf "%s-csi" (include "hushpod.imageRepository" .)) -}}
{{- $repository = include "hushpod.repository" (list . $repository) -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* The operator's configuration; what it says itself stays. (`merge` would take false for nothing.) */ -}}
{{- define "hushpod.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := include "hushpod.defaultProvider" . -}}
{{- $filled := dict
  "image" (include "hushpod.agentImage" .)
  "imagePullPolicy" (.Values.agentImage.pullPolicy | default .Values.image.pullPolicy)
  "nativeSidecars" (semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version)
-}}
{{- if .Values.csi.enabled }}
  {{- /* People whose pods wait are told of it; what is said of the rest stays. */ -}}
  {{- $csi := deepCopy (get $config "csi" | default dict) -}}
  {{- if not (hasKey $csi "daemonSet") }}{{ $_ := set $csi "daemonSet" (include "hushpod.daemonSet" .) }}{{ end -}}
  {{- $_ := set $config "csi" $csi -}}
{{- end -}}
{{- range $field, $value := $filled }}{{ if not (hasKey $config $field) }}{{ $_ := set $config $field $value }}{{ end }}{{ end -}}
{{- toYaml $config }}
{{- end }}

{{- define "hushpod.serviceAccount" -}}
{{- .Values.serviceAccount.name | default "hushpod-webhook" -}}
{{- end }}

{{- /* Whether the webhook calls the API server: what it may do there, its token and its way out follow. */ -}}
{{- define "hushpod.callsApi" -}}
{{- if or (eq .Values.tls.mode "self") (include "hushpod.asksForLabels" .) }}true{{ end }}
{{- end }}

{{- /* Whether a rule of the configuration asks for the labels of namespaces: only then may anybody look at them. */ -}}
{{- define "hushpod.asksForLabels" -}}
{{- $found := dict -}}
{{- range .Values.config.providers -}}
{{- range get . "allow" | default list -}}
{{- if hasKey . "namespaceLabels" }}{{ $_ := set $found "any" true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $found }}true{{ end -}}
{{- end }}

{{- /* The containers of a replica that are the webhook, by their names. */ -}}
{{- define "hushpod.processes" -}}
{{- ternary (list "webhook" "twin") (list "webhook") .Values.webhook.twin | toJson -}}
{{- end }}

{{- /* Names of their ports for probes and metrics: one for each. */ -}}
{{- define "hushpod.adminPorts" -}}
{{- ternary (list "admin" "admin-twin") (list "admin") .Values.webhook.twin | toJson -}}
{{- end }}

{{- /* The webhook's port. On the node's own network the default one is kubelet's. */ -}}
{{- define "hushpod.port" -}}
{{- $port := int .Values.webhook.port -}}
{{- $admin := int .Values.webhook.adminPort -}}
{{- $port = ternary 10275 $port (and .Values.hostNetwork (eq $port 10250)) -}}
{{- if eq $port $admin -}}
{{- fail (printf "webhook.port and webhook.adminPort are both %d: they must differ" $port) -}}
{{- end -}}
{{- if and .Values.webhook.twin (eq $port (add1 $admin | int)) -}}
{{- fail (printf "webhook.port is %d, where webhook.twin has its probes: the port after webhook.adminPort" $port) -}}
{{- end -}}
{{- $port -}}
{{- end }}

{{- /*
Whether only the node itself reaches the port of probes and metrics: no NetworkPolicy holds on the node's own network, so
the address does what the policy would.
*/ -}}
{{- define "hushpod.adminIsLocal" -}}
{{- if and .Values.hostNetwork .Values.networkPolicy.enabled (not .Values.networkPolicy.metricsFrom) }}true{{ end }}
{{- end }}

{{- define "hushpod.excluded" -}}
{{- prepend (.Values.webhook.excludedNamespaces | default list) .Release.Namespace | uniq | toJson -}}
{{- end }}

{{- /*
Whose pods are injected: what webhook.namespaceSelector says, and never ours, whose replicas would wait for themselves, nor
the excluded ones.
*/ -}}
{{- define "hushpod.namespaceSelector" -}}
{{- $selector := deepCopy (.Values.webhook.namespaceSelector | default dict) -}}
{{- $not := dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" (include "hushpod.excluded" . | fromJsonArray) -}}
{{- $_ := set $selector "matchExpressions" (append (get $selector "matchExpressions" | default list) $not) -}}
{{- toYaml $selector -}}
{{- end }}

{{- /* The same of webhook.namespaceSelector in CEL, about `labels`. */ -}}
{{- define "hushpod.namespaceIsSelected" -}}
{{- $parts := list -}}
{{- $selector := .Values.webhook.namespaceSelector | default dict -}}
{{- range $key, $value := get $selector "matchLabels" | default dict -}}
{{- $parts = append $parts (printf "%s in variables.labels && variables.labels[%s] == %s" (toJson $key) (toJson $key) (toJson $value)) -}}
{{- end -}}
{{- range get $selector "matchExpressions" | default list -}}
{{- $key := toJson .key -}}
{{- $is := printf "%s in variables.labels" $key -}}
{{- if eq .operator "Exists" -}}{{- $parts = append $parts $is -}}
{{- else if eq .operator "DoesNotExist" -}}{{- $parts = append $parts (printf "!(%s)" $is) -}}
{{- else -}}
{{- $in := printf "%s && variables.labels[%s] in %s" $is $key (toJson .values) -}}
{{- $parts = append $parts (ternary $in (printf "!(%s)" $in) (eq .operator "In")) -}}
{{- end -}}
{{- end -}}
{{- range $index, $part := $parts }}{{ if $index }} && {{ end }}({{ $part }}){{ else }}true{{ end -}}
{{- end }}

{{- /* config.defaultProvider, which has to be one. */ -}}
{{- define "hushpod.defaultProvider" -}}
{{- with get .Values.config "defaultProvider" -}}
{{- $names := keys ($.Values.config.providers | default dict) | sortAlpha -}}
{{- if not (has . $names) -}}
{{- fail (printf "config.defaultProvider: unknown provider %q; config.providers has %s" . ($names | join ", " | default "none")) -}}
{{- end -}}
{{- . -}}
{{- end -}}
{{- end }}

{{- /* A reference as a pod writes it, to the store that is the first to come to mind. */ -}}
{{- define "hushpod.example" -}}
{{- $default := include "hushpod.defaultProvider" . -}}
{{- $name := $default | default (keys .Values.config.providers | sortAlpha | first) -}}
{{- $type := get (get .Values.config.providers $name) "type" -}}
{{- $paths := dict "vault" "secret/data/web/db#password" "aws" "prod/web/db#password" "ssm" "/prod/web/db-password" "azure" "web-db-password" "gcp" "web-db-password" "infisical" "/web#DB_PASSWORD" "file" "web-secrets/db.enc.yaml#password" -}}
{{- if ne $name $default }}{{ $name }}:{{ end }}{{ get $paths $type -}}
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

{{- /*
The audiences of the providers' tokens, as {audience: seconds} in JSON: the default ones are those of `default_audience`
in src/provider. tests/integration/chart.rs compares this with what `hushpod csi --print-driver` says.
*/ -}}
{{- define "hushpod.audiences" -}}
{{- $found := dict -}}
{{- range $name, $provider := .Values.config.providers -}}
{{- $auth := get $provider "auth" | default dict -}}
{{- $method := get $auth "method" -}}
{{- $default := "" -}}
{{- if eq $provider.type "vault" -}}
{{- if has $method (list "" "kubernetes" "jwt") }}{{ $default = "vault" }}{{ end -}}
{{- else if eq $provider.type "infisical" -}}
{{- if has $method (list "" "kubernetes" "oidc" "jwt") }}{{ $default = "infisical" }}{{ end -}}
{{- else if has $provider.type (list "aws" "ssm") -}}
{{- if has $method (list "" "web-identity") }}{{ $default = "sts.amazonaws.com" }}{{ end -}}
{{- if eq $method "pod-identity" }}{{ $default = "pods.eks.amazonaws.com" }}{{ end -}}
{{- else if eq $provider.type "azure" -}}
{{- if has $method (list "" "workload-identity") }}{{ $default = "api://AzureADTokenExchange" }}{{ end -}}
{{- else if eq $provider.type "gcp" -}}
{{- with get $auth "audience" }}{{ $default = printf "https:%s" (trimPrefix "https:" .) }}{{ end -}}
{{- end -}}
{{- with get $provider "audience" | default $default -}}
{{- $seconds := get $provider "tokenSeconds" | default 600 | int -}}
{{- $_ := set $found . (min $seconds (get $found . | default $seconds | int)) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- /*
The ports of stores, of what gives logins for them, and of proxies, as an array in JSON. GKE's metadata server is asked at
port 80 and answers at 988 of the node.
*/ -}}
{{- define "hushpod.storePorts" -}}
{{- $ports := list 443 -}}
{{- $urls := list (get .Values.config "proxy") -}}
{{- range $provider := .Values.config.providers -}}
{{- $auth := get $provider "auth" | default dict -}}
{{- range list "address" "endpoint" "stsEndpoint" "authority" "proxy" }}{{ $urls = append $urls (get $provider .) }}{{ end -}}
{{- range list "agent" "metadata" "tokenUrl" "impersonationUrl" }}{{ $urls = append $urls (get $auth .) }}{{ end -}}
{{- if has (get $auth "method") (list "pod-identity" "managed-identity" "metadata") }}{{ $ports = append $ports 80 }}{{ end -}}
{{- if eq (get $auth "method" | toString) "metadata" }}{{ $ports = append $ports 988 }}{{ end -}}
{{- end -}}
{{- range $urls -}}
{{- if regexMatch "^https?://" (toString .) -}}
{{- $host := regexFind "^https?://[^/]+" . -}}
{{- $usual := ternary 443 80 (hasPrefix "https:" .) -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $host | trimPrefix ":" | default $usual | int) -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end }}

{{- /* Whole MiB of what `config.csi.bytesPerNode` says, which is 1Gi if it says nothing. */ -}}
{{- define "hushpod.csiMebibytes" -}}
{{- $text := get (get .Values.config "csi" | default dict) "bytesPerNode" | default "1Gi" | toString -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $bytes := mul (regexFind "^[0-9]+" $text | int64) (get $units (regexReplaceAll "^[0-9]+" $text "") | int64) -}}
{{- div (add $bytes 1048575) 1048576 -}}
{{- end }}

{{- /*
The sources of the stores' authorities, a file for each provider with a caBundle. Optional, unlike in pods: one bundle that
is missing would keep the driver from all volumes of its node.
*/ -}}
{{- define "hushpod.trustBundles" -}}
{{- range $name, $provider := .Values.config.providers }}
{{- with get $provider "caBundle" }}
- clusterTrustBundle:
    path: {{ $name }}
    optional: true
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What a PodMonitor reads of a port. The label `node` is there for alerts. Arguments: the root, and the port's name. */ -}}
{{- define "hushpod.endpoint" -}}
- port: {{ index . 1 }}
  path: /metrics
  interval: {{ (index . 0).Values.metrics.podMonitor.interval }}
  relabelings:
    - {action: replace, sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: node}
{{- end }}

{{- /*
The alerts of files/alerts.yaml, which Prometheus could read as they are, for this installation: without what it does not
have, by its own numbers, and with links to where its runbook is.
*/ -}}
{{- define "hushpod.rules" -}}
{{- $rules := .Values.metrics.rules -}}
{{- $known := list -}}
{{- $groups := list -}}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
{{- $kept := list -}}
{{- range .rules -}}
{{- $known = append $known .alert -}}
{{- $is_wanted := not (has .alert $rules.disabled) -}}
{{- if eq .alert "HushpodWebhookReplicaMissing" -}}
{{- $processes := mul $.Values.replicaCount (include "hushpod.processes" $ | fromJsonArray | len) -}}
{{- $_ := set . "expr" (replace "< 4" (printf "< %d" $processes) .expr) -}}
{{- $is_wanted = and $is_wanted (gt (int $.Values.replicaCount) 1) -}}
{{- else if eq .alert "HushpodDriverNearlyFull" -}}
{{- $_ := set . "expr" (replace "1073741824" (mul (include "hushpod.csiMebibytes" $ | int64) 1048576 | toString) .expr) -}}
{{- end -}}
{{- $_ := set . "labels" (merge (dict) .labels ($rules.alertLabels | default dict)) -}}
{{- $_ := set .annotations "runbook_url" (replace "deploy/runbook.md" $rules.runbookUrl .annotations.runbook_url) -}}
{{- if $is_wanted }}{{ $kept = append $kept . }}{{ end -}}
{{- end -}}
{{- $_ := set . "rules" $kept -}}
{{- if and $kept (or (ne .name "hushpod-csi") $.Values.csi.enabled) }}{{ $groups = append $groups . }}{{ end -}}
{{- end -}}
{{- range $rules.disabled -}}
{{- if not (has . $known) -}}
{{- fail (printf "metrics.rules.disabled: unknown alert %q; there are %s" . (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "groups" $groups) -}}
{{- end }}
