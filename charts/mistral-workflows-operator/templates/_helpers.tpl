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

{{/* A node would say only InvalidImageName. A colon may stand before a port, which a path follows. */}}
{{- define "operator.checkRepository" -}}
{{- if regexMatch "[A-Z]" . }}
{{- fail (printf "image.repository %s has capital letters: name your registry and the image in lower case" .) }}
{{- end }}
{{- if contains "://" . }}
{{- fail (printf "image.repository %s has a scheme: leave %s:// out" . (splitList "://" . | first)) }}
{{- end }}
{{- if or (contains "@" .) (splitList "/" . | last | contains ":") }}
{{- fail (printf "image.repository %s has a tag or a digest: set image.tag or image.digest" .) }}
{{- end }}
{{- end }}

{{- define "operator.image" -}}
{{- include "operator.checkRepository" .Values.image.repository }}
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
    # OpenShift's DNS pods listen here. A policy sees the pod's port, not the Service's.
    - port: 5353
      protocol: UDP
    - port: 5353
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

{{/* An address in the form in which the operator compares addresses. */}}
{{- define "operator.origin" -}}
{{- $url := lower . | trimSuffix "/" }}
{{- if hasPrefix "https://" $url }}{{ $url | trimSuffix ":443" }}{{ else }}{{ $url | trimSuffix ":80" }}{{ end }}
{{- end }}

{{/* The operator would refuse the Workspace, or not see it. */}}
{{- define "operator.checkWorkspace" -}}
{{- $url := .Values.workspace.baseURL | default "https://api.mistral.ai" }}
{{- $allowed := .Values.allowBaseURLs | default (list "https://api.mistral.ai" "https://api.eu.mistral.ai" "https://api.us.mistral.ai") }}
{{- $origins := list }}
{{- range $allowed }}{{ $origins = append $origins (include "operator.origin" .) }}{{ end }}
{{- if not (has (include "operator.origin" $url) $origins) }}
{{- fail (printf "the Workspace's address %s is not among those that the operator may call (%s): set workspace.baseURL to one of them, or add it to allowBaseURLs" $url (join ", " $allowed)) }}
{{- end }}
{{- $namespace := include "operator.workspaceNamespace" . }}
{{- $watched := .Values.watchNamespaces | default list }}
{{- if and $watched (not (has $namespace $watched)) }}
{{- fail (printf "the Workspace's namespace %s is not watched: set workspace.namespace to one of watchNamespaces (%s), or add it there" $namespace (join ", " $watched)) }}
{{- end }}
{{- $secret := .Values.workspace.secret.name }}
{{- $readable := .Values.rbac.secretNames | default list }}
{{- if and .Values.rbac.create $readable (not (has $secret $readable)) }}
{{- fail (printf "the operator may not read the Workspace's Secret %s: add it to rbac.secretNames (%s), or set workspace.secret.name to one of them" $secret (join ", " $readable)) }}
{{- end }}
{{- end }}
