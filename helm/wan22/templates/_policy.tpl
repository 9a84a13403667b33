{{/* The pods of a component of this release, as a peer; and how the policy of a component begins. */}}
{{- define "wan22.peer" -}}
podSelector:
  matchLabels: {{- include "wan22.selector" . | nindent 4 }}
{{- end }}
{{- define "wan22.policy" }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "wan22.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "wan22.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "wan22.selector" . | nindent 6 }}
{{- end }}
