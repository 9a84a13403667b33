{{/* Name of a component's objects: the release's and its own. */}}
{{- define "wan22.name" -}}
{{- printf "%s-%s" (.root.Release.Name | trunc 40 | trimSuffix "-") .component -}}
{{- end -}}

{{/* By which a component's pods are found; the operator's network policies know the same labels. */}}
{{- define "wan22.selector" -}}
app.kubernetes.io/part-of: wan22
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "wan22.labels" -}}
{{ include "wan22.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "wan22.image" -}}
{{- printf "%s/%s:%s" .root.Values.image.repository .name (.root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}


{{/* Name of a component's Secret of tls.crt, tls.key and ca.crt: the one that the values name, else the chart's own; empty in plaintext. */}}
{{- define "wan22.tlsSecret" -}}
{{- if .given -}}{{ .given }}
{{- else if ne .root.Values.tls.mode "off" -}}{{ include "wan22.name" . }}-tls
{{- end -}}
{{- end -}}

{{/* Whether the chart makes tenants and keys itself. */}}
{{- define "wan22.ownKeys" -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.tenantsSecret.name) }}yes{{ end -}}
{{- end -}}

{{- define "wan22.keysSecret" -}}
{{- include "wan22.name" (dict "root" . "component" "keys") -}}
{{- end -}}

{{/* Whether the gateway keeps anything on a volume: an SQLite store, or results outside S3. */}}
{{- define "wan22.gatewayVolume" -}}
{{- if or (not .Values.gateway.store.url) (not .Values.gateway.results.url) }}yes{{ end -}}
{{- end -}}
