{{/* What never changes about a component's pods. Takes a list: the context, the component. */}}
{{- define "ensconce.selector" -}}
app.kubernetes.io/name: ensconce
app.kubernetes.io/instance: {{ (index . 0).Values.name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "ensconce.labels" -}}
{{ include "ensconce.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion }}
app.kubernetes.io/part-of: ensconce
ensconce/platform: {{ (index . 0).Values.platform }}
{{- end }}

{{/* The ConfigMap's name: another content is another object. */}}
{{- define "ensconce.configMap" -}}
{{- $text := "" -}}
{{- range $part := list (include "ensconce.files" . | fromJson) .Values.enclave.binaryFiles -}}
{{- range $name, $content := $part -}}
{{- $text = printf "%s%s\n%s\n" $text $name $content -}}
{{- end -}}
{{- end -}}
{{- printf "%s-enclave-%s" .Values.name ($text | sha256sum | trunc 10) -}}
{{- end }}

{{/* The ConfigMap's text, as JSON. */}}
{{- define "ensconce.files" -}}
{{- $files := deepCopy .Values.enclave.files -}}
{{- with .Values.models.ownerKey -}}{{- $_ := set $files "owner.pub" . -}}{{- end -}}
{{- toJson $files -}}
{{- end }}

{{/* What replicas serve, as JSON: ports by name. */}}
{{- define "ensconce.apis" -}}
{{- toJson (pick .Values.ports "grpc" "rest") -}}
{{- end }}

{{/* The address of a host: itself, or what hosts says; nothing where DNS would have to tell. */}}
{{- define "ensconce.address" -}}
{{- $host := index . 1 -}}
{{- if or (regexMatch "^[0-9.]+$" $host) (contains ":" $host) -}}
{{- $host -}}
{{- else -}}
{{- get (index . 0).Values.hosts $host -}}
{{- end -}}
{{- end }}

{{/* A rule of a NetworkPolicy to a host by its address. Takes a list: the context, the host, the port. */}}
{{- define "ensconce.toHost" -}}
{{- $address := include "ensconce.address" (list (index . 0) (index . 1)) -}}
- to:
    - ipBlock:
        cidr: {{ $address }}/{{ contains ":" $address | ternary 128 32 }}
  ports:
    - protocol: TCP
      port: {{ index . 2 | int }}
{{- end }}

{{- define "ensconce.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $port | default (eq $url.scheme "http" | ternary "80" "443") -}}
{{- end }}

{{/* Whom a rule is about: pods by labels, or addresses. */}}
{{- define "ensconce.peer" -}}
{{- if .cidr }}
ipBlock:
  cidr: {{ .cidr }}
{{- else }}
{{- with .namespace }}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- if hasKey . "podLabels" }}
podSelector:
  {{- if .podLabels }}
  matchLabels:
    {{- toYaml .podLabels | nindent 4 }}
  {{- else }} {}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ensconce.container" -}}
image: {{ .Values.image }}
imagePullPolicy: {{ .Values.imagePullPolicy }}
{{ include "ensconce.containerSecurity" . }}
{{- end }}

{{- define "ensconce.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "ensconce.epc" -}}
{{- get (dict "intel" "sgx.intel.com/epc" "azure" "kubernetes.azure.com/sgx_epc_mem_in_MiB" "alibaba" "alibabacloud.com/sgx_epc_MiB") . -}}
{{- end }}

{{/* What a device plugin gives. Takes a list: sgx, mebibytes. */}}
{{- define "ensconce.devices" -}}
{{- $sgx := index . 0 -}}
{{- if eq $sgx.plugin "intel" -}}
sgx.intel.com/enclave: 1
sgx.intel.com/epc: {{ index . 1 | int64 }}Mi
sgx.intel.com/provision: 1
{{- else -}}
{{ include "ensconce.epc" $sgx.plugin }}: {{ index . 1 | int64 }}
{{- end -}}
{{- end }}
