"""The PyPI client `kubernetes` against the cluster of KUBECONFIG: prints "done" at the end."""

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException

NAMESPACE = "python"
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def refused(status, reason, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == status and reason in error.body, (error.status, error.body)
    else:
        raise AssertionError(f"{call.__name__} succeeded")


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"app": "py"}), data=data)


core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))

# Create, read, replace, patch, errors.
made = core.create_namespaced_config_map(NAMESPACE, config_map("one", a="1"))
refused(409, "AlreadyExists", core.create_namespaced_config_map, NAMESPACE, config_map("one"))
refused(404, "NotFound", core.read_namespaced_config_map, "none", NAMESPACE)
refused(422, "Invalid", core.create_namespaced_config_map, NAMESPACE, config_map("Not A Name"))
made.data["a"] = "2"
replaced = core.replace_namespaced_config_map("one", NAMESPACE, made)
refused(409, "Conflict", core.replace_namespaced_config_map, "one", NAMESPACE, made)
patched = core.patch_namespaced_config_map("one", NAMESPACE, {"data": {"b": "3"}})
assert patched.data == {"a": "2", "b": "3"}, patched.data

# A watch goes on after a list; pages hold everything.
listed = core.list_namespaced_config_map(NAMESPACE, label_selector="app=py")
assert [item.metadata.name for item in listed.items] == ["one"]
for number in range(5):
    core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{number}"))
core.delete_namespaced_config_map("one", NAMESPACE)
seen = []
stream = watch.Watch()
for event in stream.stream(
    core.list_namespaced_config_map,
    NAMESPACE,
    label_selector="app=py",
    resource_version=listed.metadata.resource_version,
    timeout_seconds=30,
):
    seen.append((event["type"], event["object"].metadata.name))
    if event["type"] == "DELETED":
        stream.stop()
assert seen == [("ADDED", f"page-{number}") for number in range(5)] + [("DELETED", "one")], seen
names, token = [], None
while True:
    page = core.list_namespaced_config_map(NAMESPACE, label_selector="app=py", limit=2, _continue=token)
    names += [item.metadata.name for item in page.items]
    token = page.metadata._continue
    if not token:
        break
assert names == [f"page-{number}" for number in range(5)], names

# YAML as kubectl takes it, a subresource, deletion of a collection.
labels = {"app": "web"}
container = {"name": "web", "image": "nginx"}
utils.create_from_dict(
    client.ApiClient(),
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    },
)
apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 0}})
assert apps.read_namespaced_deployment_scale("web", NAMESPACE).spec.replicas == 0
core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="app=py")
assert core.list_namespaced_config_map(NAMESPACE, label_selector="app=py").items == []

# A definition, its objects, and server-side apply through discovery.
schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
client.ApiextensionsV1Api().create_custom_resource_definition(
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
)
for event in watch.Watch().stream(
    client.ApiextensionsV1Api().list_custom_resource_definition,
    field_selector="metadata.name=gadgets.example.com",
    timeout_seconds=30,
):
    conditions = event["object"].status.conditions if event["object"].status else None
    if any(c.type == "Established" and c.status == "True" for c in conditions or []):
        break
else:
    raise AssertionError("the definition is not established")
gadgets = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="example.com/v1", kind="Gadget")
gadget = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"size": 1}}
gadgets.server_side_apply(gadget, namespace=NAMESPACE, field_manager="first")
gadget["spec"]["size"] = 2
try:
    gadgets.server_side_apply(gadget, namespace=NAMESPACE, field_manager="second")
except ApiException as error:
    assert error.status == 409 and "FieldManagerConflict" in str(error.body), error
else:
    raise AssertionError("a conflict was not seen")
gadgets.server_side_apply(gadget, namespace=NAMESPACE, field_manager="second", force_conflicts=True)
custom = client.CustomObjectsApi()
found = custom.get_namespaced_custom_object("example.com", "v1", NAMESPACE, "gadgets", "g")
assert found["spec"] == {"size": 2}, found
custom.delete_namespaced_custom_object("example.com", "v1", NAMESPACE, "gadgets", "g")
refused(404, "NotFound", custom.get_namespaced_custom_object, "example.com", "v1", NAMESPACE, "gadgets", "g")
print("done")
