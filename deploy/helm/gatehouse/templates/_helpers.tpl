{{- define "gatehouse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "gatehouse.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "gatehouse.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gatehouse.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "gatehouse.selector" -}}
app.kubernetes.io/name: {{ include "gatehouse.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gatehouse.labels" -}}
{{ include "gatehouse.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Not the selector's: the Service must send nothing to this pod. */ -}}
{{- define "gatehouse.storeInitLabels" -}}
app.kubernetes.io/name: {{ include "gatehouse.name" . }}-store-init
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "gatehouse.metadata" -}}
name: {{ include "gatehouse.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "gatehouse.labels" . | nindent 2 }}
{{- end }}

{{- define "gatehouse.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gatehouse.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "gatehouse.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{- /* The configuration with what the chart sets, as YAML. */ -}}
{{- define "gatehouse.config" -}}
{{- $set := dict
  "listen" ":8080"
  "admin_listen" ":9090"
  "shutdown_grace" (printf "%ds" (int .Values.shutdownGraceSeconds)) -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $set "tls" (dict "cert_file" "/tls/tls.crt" "key_file" "/tls/tls.key") -}}
{{- end -}}
{{- $config := deepCopy .Values.config -}}
{{- if .Values.embedded.enabled -}}
{{- $store := omit (default dict (get $config "store")) "redis" -}}
{{- $_ := set $set "store" (set $store "embedded" (dict "file" "/data/gatehouse.db.jsonl")) -}}
{{- end -}}
{{- toYaml (merge $set $config) -}}
{{- end }}

{{- /* What of it counts from start to end of a process; the rest is loaded when it changes. */ -}}
{{- define "gatehouse.lasting" -}}
{{- $config := include "gatehouse.config" . | fromYaml -}}
{{- $limits := default dict (get $config "limits") -}}
{{- dict
  "settings" (pick $config "listen" "listen_h2c" "admin_listen" "shutdown_grace" "store" "delegation" "audit" "tracing")
  "limits" (pick $limits "scope" "max_header" "max_header_lines" "header_timeout" "idle_timeout" "http2")
  "token" (pick (default dict (get $config "token")) "prefix")
  "log" (pick (default dict (get $config "log")) "format" "buffer")
  "tls" (hasKey $config "tls") | toJson -}}
{{- end }}
