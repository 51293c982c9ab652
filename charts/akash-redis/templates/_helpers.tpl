{{/* Name of all objects of the release. */}}
{{- define "akash-redis.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "akash-redis.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "akash-redis.labels" -}}
{{ include "akash-redis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "akash-redis.serviceAccount" -}}
{{- default (include "akash-redis.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* By digest if there is one. */}}
{{- define "akash-redis.image" -}}
{{- $repository := required "image.repository: name the operator's image, which `make image-operator` builds" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The settings file: what was given, and what is the chart's to say. */}}
{{- define "akash-redis.settings" -}}
{{- $given := .Values.settings -}}
{{- $_ := required "settings.chain.grpc: name at least one gRPC endpoint of the chain" $given.chain.grpc -}}
{{- $_ := required "settings.mesh.oauthClientId: name the OAuth client of the tailnet" $given.mesh.oauthClientId -}}
{{- $_ := required "settings.node.image: name the node image, by digest" $given.node.image -}}
{{- $_ := required "settings.budget.global: say what all clusters together may cost per month, e.g. 40act" $given.budget.global -}}
{{- $_ := required "settings.budget.perClusterDefault: say what one cluster may cost per month, e.g. 12act" $given.budget.perClusterDefault -}}
{{- $kubernetes := dict "namespace" .Release.Namespace -}}
{{- if not .Values.watch.allNamespaces -}}
{{- $_ := set $kubernetes "watchNamespace" .Release.Namespace -}}
{{- end -}}
{{- with .Values.watch.selector -}}
{{- $_ := set $kubernetes "selector" . -}}
{{- end -}}
{{- $wallet := dict "mnemonicFile" "/etc/akash-redis/secrets/mnemonic" -}}
{{- $mesh := dict "oauthSecretFile" "/etc/akash-redis/secrets/oauth.secret" -}}
{{- if not $given.mesh.socks5 -}}
{{- $_ := set $mesh "tailscaled" (dict "stateDir" "/var/lib/akash-redis/tailscale") -}}
{{- end -}}
{{- $ours := dict
      "rootSecretFile" "/etc/akash-redis/secrets/root.secret"
      "store" (dict "kubernetes" $kubernetes)
      "api" (dict "socket" "/run/akash-redis/operator.sock" "metrics" (printf "0.0.0.0:%v" .Values.metrics.port))
      "wallet" $wallet
      "mesh" $mesh -}}
{{- toYaml (mergeOverwrite (deepCopy $given) $ours) -}}
{{- end -}}

{{/* What the operator may do with clusters, wherever it looks after them. */}}
{{- define "akash-redis.rules.clusters" -}}
- apiGroups: [akash-redis.dev]
  resources: [redisclusters]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [akash-redis.dev]
  resources: [redisclusters/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.secrets.read }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
  {{- with .Values.secrets.names }}
  resourceNames:
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What it may do in its own namespace: its memory, and the Lease that says who works. */}}
{{- define "akash-redis.rules.installation" -}}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, create, update, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update]
{{- end -}}
