{{- define "gatehouse.pod" -}}
serviceAccountName: {{ include "gatehouse.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- /* Two seconds for connections that were just made, and three for closing. */}}
terminationGracePeriodSeconds: {{ add .Values.preStopSeconds .Values.shutdownGraceSeconds 5 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- else }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "gatehouse.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
containers:
  - {{- include "gatehouse.container" . | nindent 4 }}
volumes:
  - name: config
    configMap: {name: {{ include "gatehouse.fullname" . }}}
  {{- with .Values.tls.secretName }}
  - name: tls
    secret: {secretName: {{ . }}, defaultMode: 0440}
  {{- end }}
  {{- if .Values.embedded.enabled }}
  - name: data
    persistentVolumeClaim: {claimName: {{ include "gatehouse.fullname" . }}}
  {{- end }}
  {{- with .Values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "gatehouse.container" -}}
name: gatehouse
image: {{ include "gatehouse.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/gatehouse/config.yaml]
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
ports:
  - {name: public, containerPort: 8080, protocol: TCP}
  - {name: admin, containerPort: 9090, protocol: TCP}
env:
  - {name: GOMEMLIMIT, value: {{ .Values.goMemLimit | quote }}}
  {{- range $name, $from := .Values.secrets }}
  - name: {{ $name }}
    valueFrom:
      secretKeyRef: {name: {{ $from.name | quote }}, key: {{ $from.key | quote }}}
  {{- end }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
lifecycle:
  preStop:
    sleep: {seconds: {{ .Values.preStopSeconds }}}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  # A folder as a whole: a file mounted by subPath would never change.
  - {name: config, mountPath: /etc/gatehouse, readOnly: true}
  {{- if .Values.tls.secretName }}
  - {name: tls, mountPath: /tls, readOnly: true}
  {{- end }}
  {{- if .Values.embedded.enabled }}
  - {name: data, mountPath: /data}
  {{- end }}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
