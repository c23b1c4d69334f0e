import os

# What a shell of this machine has set must not reach a command of the page.
for name in list(os.environ):
    if name.startswith(("AWS_", "OFFRAMP_", "HELM_", "KUBECONFIG")):
        del os.environ[name]
