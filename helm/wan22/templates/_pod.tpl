{{/* What every pod of the chart begins with; .settings is its component's values. */}}
{{- define "wan22.pod" -}}
enableServiceLinks: false  # variables of services named wan22-* would look like settings
automountServiceAccountToken: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Where its pods go. */}}
{{- define "wan22.scheduling" -}}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .settings.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
- {{- merge (dict "labelSelector" (dict "matchLabels" (include "wan22.selector" $ | fromYaml))) . | toYaml | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "wan22.podMetadata" -}}
labels:
  {{- with .settings.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "wan22.labels" . | nindent 2 }}
{{- with .settings.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "wan22.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Kubelet asks the health port, which is plaintext and answers from a thread of its own; on a busy node not within its second. */}}
{{- define "wan22.probes" -}}
startupProbe:
  grpc: {port: {{ .health }}, service: live}
  timeoutSeconds: 5
  periodSeconds: 2
  failureThreshold: {{ .starts }}
readinessProbe:
  grpc: {port: {{ .health }}, service: ready}
  timeoutSeconds: 5
  periodSeconds: 5
livenessProbe:
  grpc: {port: {{ .health }}, service: live}
  timeoutSeconds: 5
  periodSeconds: 10
  failureThreshold: 3
{{- end -}}

{{/* A setting's value as a variable's text; whole numbers stay whole, lists are JSON. */}}
{{- define "wan22.settingText" -}}
{{- if kindIs "float64" . -}}{{ (eq (float64 (int64 .)) .) | ternary (int64 . | toString) (toString .) }}
{{- else if or (kindIs "slice" .) (kindIs "map" .) -}}{{ toJson . }}
{{- else -}}{{ toString . }}
{{- end -}}
{{- end -}}

{{/* Settings by their own names as variables. */}}
{{- define "wan22.environment" -}}
{{- range $name, $value := .settings.settings }}
- {name: {{ $.prefix }}_{{ upper $name }}, value: {{ include "wan22.settingText" $value | quote }}}
{{- end }}
{{- with .settings.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* How a service listens: by its certificate, or in plaintext where the values say so. */}}
{{- define "wan22.listening" -}}
- {name: {{ .prefix }}_HOST, value: 0.0.0.0}
{{- if .tls }}
- {name: {{ .prefix }}_TLS_CA, value: /etc/wan22/tls/ca.crt}
- {name: {{ .prefix }}_TLS_CERT, value: /etc/wan22/tls/tls.crt}
- {name: {{ .prefix }}_TLS_KEY, value: /etc/wan22/tls/tls.key}
{{- else }}
- {name: {{ .prefix }}_PLAINTEXT, value: "true"}
{{- end }}
{{- end -}}
