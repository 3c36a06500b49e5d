{{- define "operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* For what has no namespace: releases in several namespaces may have the same name. */}}
{{- define "operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "operator.fullname" .) }}
{{- end }}

{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* All labels; a dict with root and component. */}}
{{- define "operator.labels" -}}
{{- with .root -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: mistral-workflows
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "operator.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The environment that the chart sets itself, and the value to set instead. The flag of a variable has its name, except for
--namespace.
*/}}
{{- define "operator.owned" -}}
ALLOW_BASE_URL: allowBaseURLs
INPUT_SECRETS_NEED_LABEL: inputs.secretsNeedLabel
LEASE: fullnameOverride
LEASE_NAME: fullnameOverride
LEASE_NAMESPACE: ""
LISTEN: ""
LOG: log.level
LOG_FORMAT: log.format
LOG_LEVEL: log.level
MAX_REQUESTS_PER_SECOND: maxRequestsPerSecond
WATCH_NAMESPACE: watchNamespaces
{{- end }}

{{/* A dict with list, what the entry is, and value. */}}
{{- define "operator.refuse" -}}
{{- $instead := "it cannot be changed" }}
{{- with .value }}{{ $instead = printf "use %s" . }}{{ end }}
{{- fail (printf "%s has %s, which the chart sets itself: %s" .list .entry $instead) }}
{{- end }}

{{/* Of two settings of one thing, the last would win, and the rights of the chart would fit the first. */}}
{{- define "operator.checkExtras" -}}
{{- $owned := include "operator.owned" . | fromYaml }}
{{- range .Values.extraEnv }}
{{- if hasKey $owned .name }}
{{- include "operator.refuse" (dict "list" "extraEnv" "entry" .name "value" (get $owned .name)) }}
{{- end }}
{{- end }}
{{- range .Values.extraArgs }}
{{- $flag := regexReplaceAll "=.*" . "" }}
{{- range $name, $value := $owned }}
{{- $ours := $name | lower | replace "_" "-" | printf "--%s" }}
{{- if eq $name "WATCH_NAMESPACE" }}{{ $ours = "--namespace" }}{{ end }}
{{- if eq $flag $ours }}
{{- include "operator.refuse" (dict "list" "extraArgs" "entry" $flag "value" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What all pods have in common. */}}
{{- define "operator.pod" -}}
enableServiceLinks: false
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* An image with wget names no user, or root. OpenShift sets a user for each namespace, and refuses others. */}}
{{- define "operator.testSecurityContext" -}}
{{- $context := deepCopy (.Values.podSecurityContext | default dict) }}
{{- if not (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}
{{- $context = mergeOverwrite (dict "runAsUser" 65532 "runAsGroup" 65532) $context }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{/* The rules to which the pods' egress is held: DNS and the API server. */}}
{{- define "operator.clusterEgress" -}}
# DNS
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
# The API server
- ports:
    {{- range .Values.networkPolicy.apiServer.ports }}
    - port: {{ . }}
    {{- end }}
  {{- with .Values.networkPolicy.apiServer.cidrs }}
  to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  {{- end }}
{{- end }}

{{- define "operator.workspaceNamespace" -}}
{{- .Values.workspace.namespace | default (first (.Values.watchNamespaces | default list)) | default .Release.Namespace }}
{{- end }}
