{{/* Which certificates the release needs, and in which namespaces: {component: [namespace]}. */}}
{{- define "wan22.certificates" -}}
{{- $here := list .Release.Namespace }}
{{- $wanted := dict "worker" (concat $here .Values.tls.workerNamespaces | uniq) "admin" $here "operator" $here }}
{{- if .Values.gateway.enabled }}{{ $_ := set $wanted "gateway" $here }}{{ end }}
{{- if .Values.registry.enabled }}{{ $_ := set $wanted "registry" $here }}{{ $_ := set $wanted "publisher" $here }}{{ end }}
{{- if .Values.nodeCache.enabled }}{{ $_ := set $wanted "node-cache" $here }}{{ end }}
{{- if and .Values.gateway.enabled .Values.gateway.kedaPort }}{{ $_ := set $wanted "keda" $here }}{{ end }}
{{- toYaml $wanted }}
{{- end -}}

{{/* The names of a component's certificate: its role's; the gateway's clients look for the host that they dial. */}}
{{- define "wan22.dnsNames" -}}
{{- $names := list .component }}
{{- if eq .component "gateway" }}
{{- $host := include "wan22.name" . }}
{{- $inside := printf "%s.%s" $host .root.Release.Namespace }}
{{- $names = concat $names (list $host $inside (printf "%s.svc" $inside) (printf "%s.svc.%s" $inside .root.Values.clusterDomain) "localhost") .root.Values.tls.gatewayNames }}
{{- end }}
{{- toYaml $names }}
{{- end -}}

{{/* ConfigMap of the authority by which the routes' controller knows the gateway; empty where there is no such policy. */}}
{{- define "wan22.routesAuthority" -}}
{{- $routes := .Values.gateway.routes }}
{{- $encrypted := include "wan22.tlsSecret" (dict "given" .Values.gateway.tlsSecret "root" . "component" "gateway") }}
{{- if and .Values.gateway.enabled $routes.enabled $routes.tlsPolicy.enabled $encrypted }}
{{- if $routes.tlsPolicy.caConfigMap }}
{{- $routes.tlsPolicy.caConfigMap }}
{{- else if and (eq .Values.tls.mode "selfMade") (not .Values.gateway.tlsSecret) }}
{{- include "wan22.name" (dict "root" . "component" "authority") }}
{{- else }}
{{- fail "gateway.routes reach a gateway that speaks TLS: name a ConfigMap with its authority's ca.crt by gateway.routes.tlsPolicy.caConfigMap, or set gateway.routes.tlsPolicy.enabled to false if your controller learns it otherwise." }}
{{- end }}
{{- end }}
{{- end -}}
