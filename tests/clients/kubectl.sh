#!/bin/sh
# A real kubectl against a cluster of the sandbox: what an operator types, and what has to come back.
# It needs at least two nodes, a pod in the namespace `default` and a Service.
# It cordons, drains and uncordons a node and deletes two pods, so it takes as long as the pods take to end.
# usage: KUBECONFIG=FILE kubectl.sh KUBECTL
set -u

kubectl=${1:?usage: KUBECONFIG=FILE kubectl.sh KUBECTL}
: "${KUBECONFIG:?names the kubeconfig of the sandbox}"
# Discovery is cached by address, and another sandbox may have had the same port.
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
passed=0

k() {
    "$kubectl" --cache-dir "$cache" --request-timeout 20s "$@" 2>&1
}

# check WHAT PATTERN ARGUMENTS…: the output of kubectl has a line that matches.
check() {
    what=$1 pattern=$2
    shift 2
    output=$(k "$@")
    if ! printf '%s\n' "$output" | grep -Eq -- "$pattern"; then
        printf 'FAILED: %s: no line of "kubectl %s" matches %s:\n%s\n' "$what" "$*" "$pattern" "$output" >&2
        exit 1
    fi
    passed=$((passed + 1))
}

first() {
    k get "$@" -o name | head -n 1 | sed 's|.*/||'
}

check "the server has a version" '^Server Version: v1\.' version
check "the API is discovered" '^poddisruptionbudgets +pdb +policy/v1 +true' api-resources

node=$(first nodes)
check "nodes as a table" '^NAME +STATUS +ROLES +AGE +VERSION' get nodes
check "a node that is Ready" "^$node +Ready +<none>" get nodes
check "wide columns" '^NAME .* INTERNAL-IP .* CONTAINER-RUNTIME' get nodes -o wide
check "labels" 'topology.kubernetes.io/zone=' get nodes --show-labels
check "names" "^node/$node\$" get nodes -o name
check "one node" "^$node +Ready" get node "$node"
check "JSON" '"providerID": "aws:///' get node "$node" -o json
check "YAML" '^  providerID: aws:///' get node "$node" -o yaml
check "JSONPath over a list" 'i-0[0-9a-f]+' get nodes -o 'jsonpath={range .items[*]}{.spec.providerID}{"\n"}{end}'
check "a node that is not there" 'Error from server \(NotFound\): nodes "nobody" not found' get node nobody

check "pods as a table" '^NAME +READY +STATUS +RESTARTS +AGE' get pods
check "pods of all namespaces" '^NAMESPACE +NAME +READY' get pods -A
check "pods run" '^default +[^ ]+ +1/1 +Running +0 ' get pods -A
check "pods with their nodes" '^NAME .* NODE ' get pods -o wide
check "pods of a node" "\"nodeName\": \"$node\"" get pods -A --field-selector "spec.nodeName=$node" -o json
check "services" '^[^ ]+ +(LoadBalancer|NodePort) ' get services
check "disruption budgets" '^NAME +MIN AVAILABLE +MAX UNAVAILABLE|^No resources found' get pdb

# An Event as offramp writes it: about the Node, with its name for the UID.
cat >"$cache/event.json" <<END
{"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "$node.1", "namespace": "default"},
 "eventTime": "2026-03-14T09:00:00.000000Z", "type": "Warning", "reason": "HeldBack", "action": "TakeOutOfService",
 "note": "Holding back.", "reportingController": "offramp", "reportingInstance": "offramp",
 "regarding": {"apiVersion": "v1", "kind": "Node", "name": "$node", "uid": "$node"}}
END
check "an Event is taken" '"reason":"HeldBack"' create --raw /apis/events.k8s.io/v1/namespaces/default/events -f "$cache/event.json"
check "a node is described with its Events" '^ +Warning +HeldBack +[^ ]+ +offramp +Holding back\.$' describe node "$node"

# A watch that is open while the node changes has to tell of it.
k get nodes -w --request-timeout 0 >"$cache/watch" &
watch=$!
waited=0
until grep -q "^$node " "$cache/watch" || [ $waited -ge 50 ]; do
    sleep 0.2
    waited=$((waited + 1))
done
check "cordon" "^node/$node cordoned" cordon "$node"
check "cordon again" "^node/$node already cordoned" cordon "$node"
check "a cordoned node" "^$node +Ready,SchedulingDisabled" get nodes
waited=0
until grep -Eq "^$node +Ready,SchedulingDisabled" "$cache/watch" || [ $waited -ge 50 ]; do
    sleep 0.2
    waited=$((waited + 1))
done
kill "$watch"
wait "$watch" 2>/dev/null
if ! grep -Eq "^$node +Ready,SchedulingDisabled" "$cache/watch"; then
    printf 'FAILED: the watch did not tell of the cordon:\n%s\n' "$(cat "$cache/watch")" >&2
    exit 1
fi
passed=$((passed + 1))
check "uncordon" "^node/$node uncordoned" uncordon "$node"
check "a node for pods again" "^$node +Ready +<none>" get nodes
check "label" "^node/$node labeled" label node "$node" offramp.test/checked=yes
check "nodes by label" "^node/$node\$" get nodes -l offramp.test/checked=yes -o name
check "annotate" "^node/$node annotated" annotate node "$node" offramp.test/note=hello
check "taint" "^node/$node tainted" taint node "$node" offramp.test/gone=soon:NoSchedule
check "untaint" "^node/$node untainted" taint node "$node" offramp.test/gone-
check "unlabel" "^node/$node unlabeled" label node "$node" offramp.test/checked-

pod=$(first pods)
check "delete without waiting" "^pod \"$pod\" deleted" delete pod "$pod" --wait=false
check "a pod on its way out" "^$pod +[01]/1 +Terminating" get pods
pod=$(k get pods -o name | sed 's|.*/||' | grep -vx "$pod" | head -n 1)
check "delete by force" "^pod \"$pod\" force deleted" delete pod "$pod" --force --grace-period=0
check "a pod that is gone" "pods \"$pod\" not found" get pod "$pod"
check "drain" "^node/$node drained" drain "$node" --ignore-daemonsets --delete-emptydir-data --force --timeout 120s
check "only pods of DaemonSets are left" '^[^ ]+ +kube-system *$' get pods -A --no-headers \
    --field-selector "spec.nodeName=$node,metadata.namespace=kube-system" \
    -o 'custom-columns=NAME:.metadata.name,NAMESPACE:.metadata.namespace'
output=$(k get pods --field-selector "spec.nodeName=$node" -o name)
if [ -n "$output" ]; then
    printf 'FAILED: pods are left on a drained node:\n%s\n' "$output" >&2
    exit 1
fi
passed=$((passed + 1))
check "uncordon after the drain" "^node/$node uncordoned" uncordon "$node"
check "what the sandbox does not have" "the server doesn't have a resource type \"configmaps\"" get configmaps

echo "$passed checks passed"
