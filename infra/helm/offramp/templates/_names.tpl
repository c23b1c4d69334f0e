{{- /* What objects are called, and how they are told apart. */ -}}

{{- define "offramp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The release's name alone where it says already what this is. */ -}}
{{- define "offramp.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "offramp.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "offramp.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "offramp.selectorLabels" -}}
app.kubernetes.io/name: {{ include "offramp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "offramp.labels" -}}
{{ include "offramp.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "offramp.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "offramp.fullname" .) -}}
{{- end -}}

{{- /* Another one for each configuration. */ -}}
{{- define "offramp.configMapName" -}}
{{- printf "%s-%s" (include "offramp.fullname" .) (toYaml .Values.config | sha256sum | trunc 10) -}}
{{- end -}}

{{- /* Belongs to no namespace, so that it holds one: releases of the same name do not get into each other's way. */ -}}
{{- define "offramp.clusterRoleName" -}}
{{- printf "%s-%s" (include "offramp.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "offramp.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* The port at the end of config.admin.listen: the one place that names it. */ -}}
{{- define "offramp.adminPort" -}}
{{- regexFind "[0-9]+$" .Values.config.admin.listen -}}
{{- end -}}

{{- /* "true" where a cluster is reached by the service account of the pod. */ -}}
{{- define "offramp.inCluster" -}}
{{- range .Values.config.clusters -}}
{{- if not .kubeconfig -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What the schema cannot say: that clusters and Secrets fit together. */ -}}
{{- define "offramp.check" -}}
{{- $folder := "/etc/offramp/kubeconfigs/" -}}
{{- $used := dict -}}
{{- $inside := list -}}
{{- range .Values.config.clusters -}}
{{- if .kubeconfig -}}
{{- $name := dir .kubeconfig | base -}}
{{- if not (hasKey $.Values.kubeconfigSecrets $name) -}}
{{- $words := "config.clusters: the kubeconfig of %s is %s, but nothing is mounted there: kubeconfigSecrets has no %s" -}}
{{- fail (printf $words .name .kubeconfig $name) -}}
{{- end -}}
{{- $_ := set $used $name true -}}
{{- else -}}
{{- $inside = append $inside .name -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.kubeconfigSecrets -}}
{{- if not (hasKey $used $name) -}}
{{- fail (printf "kubeconfigSecrets.%s: no cluster of config.clusters has a kubeconfig in %s%s" $name $folder $name) -}}
{{- end -}}
{{- end -}}
{{- if gt (len $inside) 1 -}}
{{- $words := "config.clusters: %s have no kubeconfig, but only one cluster can be the one that the chart is installed in" -}}
{{- fail (printf $words (join " and " $inside)) -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.name: name a service account that exists, since serviceAccount.create is false" -}}
{{- end -}}
{{- end -}}
