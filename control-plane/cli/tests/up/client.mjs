// The npm client @kubernetes/client-node against the cluster of KUBECONFIG; NODE_MODULES is where
// it is installed. Prints "done" at the end.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const at = `${process.env.NODE_MODULES}/@kubernetes/client-node/dist/index.js`;
const k8s = await import(pathToFileURL(at));

const NAMESPACE = "javascript";
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const here = { namespace: NAMESPACE };
const path = `/api/v1/namespaces/${NAMESPACE}/configmaps`;

const configMap = (name, data) => ({ metadata: { name, labels: { app: "js" } }, data });
const create = (name, data) => core.createNamespacedConfigMap({ ...here, body: configMap(name, data) });

async function refused(code, reason, call) {
  await assert.rejects(call, (error) => {
    assert.equal(error.code, code);
    assert.equal(JSON.parse(error.body).reason, reason);
    return true;
  });
}

await core.createNamespace({ body: { metadata: { name: NAMESPACE } } });

// Create, read, replace, patch, errors.
const made = await create("one", { a: "1" });
assert.ok(made.metadata.creationTimestamp instanceof Date);
await refused(409, "AlreadyExists", () => create("one", {}));
await refused(404, "NotFound", () => core.readNamespacedConfigMap({ ...here, name: "none" }));
await refused(422, "Invalid", () => create("Not A Name", {}));
made.data.a = "2";
const replace = () => core.replaceNamespacedConfigMap({ ...here, name: "one", body: made });
assert.deepEqual((await replace()).data, { a: "2" });
await refused(409, "Conflict", replace);
const options = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch);
const merge = { ...here, name: "one", body: { data: { b: "3" } } };
assert.deepEqual((await core.patchNamespacedConfigMap(merge, options)).data, { a: "2", b: "3" });

// A watch goes on after a list.
const listed = await core.listNamespacedConfigMap({ ...here, labelSelector: "app=js" });
assert.deepEqual(listed.items.map((item) => item.metadata.name), ["one"]);
const pages = [0, 1, 2, 3, 4].map((number) => `page-${number}`);
for (const name of pages) await create(name, {});
await core.deleteNamespacedConfigMap({ ...here, name: "one" });
const seen = [];
await new Promise((resolve, reject) => {
  let abort;
  const ended = (error) => (error && error.name !== "AbortError" ? reject(error) : resolve());
  const happened = (kind, object) => {
    seen.push([kind, object.metadata.name]);
    if (kind === "DELETED") abort.then((controller) => controller.abort());
  };
  const query = { labelSelector: "app=js", resourceVersion: listed.metadata.resourceVersion, timeoutSeconds: 30 };
  abort = new k8s.Watch(config).watch(path, query, happened, ended);
  abort.catch(reject);
});
assert.deepEqual(seen, [...pages.map((name) => ["ADDED", name]), ["DELETED", "one"]]);

// Pages hold everything.
const names = [];
let _continue;
do {
  const page = await core.listNamespacedConfigMap({ ...here, labelSelector: "app=js", limit: 2, _continue });
  names.push(...page.items.map((item) => item.metadata.name));
  _continue = page.metadata._continue;
} while (_continue);
assert.deepEqual(names, pages);

// An informer follows what changes.
const informer = k8s.makeInformer(config, path, () => core.listNamespacedConfigMap(here));
const followed = new Promise((resolve, reject) => {
  informer.on("update", (object) => object.data?.followed && resolve(object.metadata.name));
  informer.on("error", reject);
});
await informer.start();
const change = { ...here, name: "page-3", body: { data: { followed: "yes" } } };
await core.patchNamespacedConfigMap(change, options);
assert.equal(await followed, "page-3");
assert.ok(informer.get("page-0", NAMESPACE));
await informer.stop();

// A subresource.
const labels = { app: "web" };
const template = { metadata: { labels }, spec: { containers: [{ name: "web", image: "nginx" }] } };
const spec = { replicas: 0, selector: { matchLabels: labels }, template };
await apps.createNamespacedDeployment({ ...here, body: { metadata: { name: "web" }, spec } });
const scale = await apps.readNamespacedDeploymentScale({ ...here, name: "web" });
assert.equal(scale.spec.replicas ?? 0, 0);
const two = { ...here, name: "web", body: { spec: { replicas: 2 } } };
const scaled = await apps.patchNamespacedDeploymentScale(two, options);
assert.equal(scaled.spec.replicas, 2);

// Objects of any kind, as discovery tells them, applied on the server's side; conflicts.
const applied = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "applied", ...here }, data: { owner: "first" } };
const apply = (value, manager, force) => {
  const object = { ...applied, data: { owner: value } };
  return objects.patch(object, undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
};
await apply("first", "one");
await refused(409, "Conflict", () => apply("second", "two"));
assert.equal((await apply("second", "two", true)).data.owner, "second");
assert.equal((await objects.read(applied)).data.owner, "second");

// A definition and its objects.
const crd = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "boats.example.com" },
  spec: {
    group: "example.com",
    scope: "Namespaced",
    names: { kind: "Boat", plural: "boats", singular: "boat" },
    versions: [{
      name: "v1", served: true, storage: true,
      schema: { openAPIV3Schema: { type: "object", properties: { spec: { type: "object", properties: { sails: { type: "integer" } } } } } },
    }],
  },
};
await objects.create(crd);
const established = async () => {
  const conditions = (await objects.read(crd)).status?.conditions ?? [];
  return conditions.some((condition) => condition.type === "Established" && condition.status === "True");
};
while (!(await established())) await new Promise((resolve) => setTimeout(resolve, 20));
const boat = { apiVersion: "example.com/v1", kind: "Boat", metadata: { name: "argo", ...here }, spec: { sails: 1 } };
await objects.create(boat);
const boats = await config.makeApiClient(k8s.CustomObjectsApi)
  .listNamespacedCustomObject({ ...here, group: "example.com", version: "v1", plural: "boats" });
assert.deepEqual(boats.items.map((item) => item.spec.sails), [1]);
await refused(422, "Invalid", () => objects.create({ ...boat, metadata: { name: "b", ...here }, spec: { sails: "two" } }));

await core.deleteCollectionNamespacedConfigMap({ ...here, labelSelector: "app=js" });
assert.deepEqual((await core.listNamespacedConfigMap({ ...here, labelSelector: "app=js" })).items, []);
console.log("done");
