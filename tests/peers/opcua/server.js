/* An OPC UA server on node-opcua, driven by JSON lines on standard input; every line is answered by one line.
 *
 *   {"op": "variable", "path": "EMS/Assets/A1/Name", "type": "String", "value": "x"}   → {}; before "start"; more: "length" (array of that
 *        length, 0: any), "dimensions" (of several), "writable", "status" ("Bad…", "Uncertain…"), "enumeration": true (a data type of the server's own), "names": [text, …] (a property EnumStrings of the variable itself), "structure": NAME of types.xml
 *        or of namespace 0 (type ExtensionObject; each value names its structure too)
 *   {"op": "start", "port": N, "certificate": FILE, "key": FILE, "uri": …, "pki": DIRECTORY, "user": …, "password": …, "policies": […], "modes": […],
 *        "namespaces": […], "limits": {…}, "capabilities": {…}, "trust": [FILE, …], "twice": [path, …] (folders that their parent
 *        holds over a second reference), "tells": [path, …] (folders that have a version, so that the server tells of changes in them by events), "types": true loads types.xml}                                                → {"port": N}; again after "stop": the same port
 *   {"op": "reset"}                                 → {}; first values again, no refusals, no tears, no connections, no counts
 *   {"op": "stop"}                                  → {}; closes every connection and stops listening; the values stay
 *   {"op": "drop"}                                  → {}; closes every connection and goes on listening
 *   {"op": "set", "path": …, "value": …, "status": …, "source": "2026-…Z"}              → {}; what is not given stays
 *   {"op": "flood", "path": …, "times": N, "every": ms} → {}; raises a number by one, N times
 *   {"op": "level", "value": 0 to 255}               → {}; the service level that the server states
 *   {"op": "method", "path": …, "arguments": [[name, type], …], "number": PATH}         → {}; before "start"; gives the value of the variable
 *        at PATH, in which $ stands for the first argument
 *   {"op": "folder", "path": …}                     → {}; before "start"; one with nothing in it
 *   {"op": "grow", "variables": [as "variable", …]}  → {}; after "start": into the living tree, until "reset"
 *   {"op": "prune", "path": …}                      → {}; takes the node and all below it out of the living tree; "grow" without variables, or "reset", puts it back
 *   {"op": "get", "path": …}                        → {"value": …, "status": …}
 *   {"op": "values", "paths": [...]}                → {"values": [...]}
 *   {"op": "refuse", "path": …, "status": "BadUserAccessDenied"}                        → {}; writes there get this status; null: no more
 *   {"op": "tear", "read": path, "bump": path, "times": N}                              → {}; each read of one raises the other by one, N times
 *   {"op": "end-subscriptions"}                     → {"count": N}; the server ends them, as after a configuration download
 *   {"op": "mute-subscriptions"}                    → {"count": N}; they stand, and never publish again
 *   {"op": "skip-notification"}                     → {"count": N}; each subscription's next notification is lost on its way
 *   {"op": "stats"}                                 → {"reads": N, "most": N, "largest": {what: N} by the list of a request, "pages": N, "writes": […], "calls": [arguments, …], "monitored": [[sampling ms, queue], …],
 *        "subscriptions": [[publishing ms, keep-alive, lifetime], …], "sessions": N, "secured": [[policy's URI, mode], …] of the sessions}
 */
"use strict";
const readline = require("readline");
const {
    OPCUAServer, SecurityPolicy, MessageSecurityMode, OPCUACertificateManager, RegisterServerMethod, nodesets,
    DataType, Variant, VariantArrayType, coerceNodeId, ExpandedNodeId, NodeIdType, DataValue, StatusCodes, AccessLevelFlag,
} = require("./library.js");

const empty = []; // paths of folders with nothing in them
const model = new Map(); // path → {type, value, length, writable, status, source, refuse}
let server = null;
let port = 0;
const methods = []; // added to the tree at start: {path, argument, number: path of the variable that it gives, with $ for the argument}
let tears = [];
let level = 255;
let stats = freshStats();
let folders = new Map(); // of the living tree: path → node
let add = null; // (path of a variable) → its node, in the living tree
let grown = [];
let pruned = new Map();

function freshStats() {
    return { reads: 0, most: 0, largest: {}, pages: 0, writes: [], monitored: [], calls: [] };
}

function statusOf(name) {
    const status = StatusCodes[name || "Good"];
    if (!status) throw new Error(`no status ${name}`);
    return status;
}

function scalar(type, value) {
    if (value === null || value === undefined) return value;
    if (type === "DateTime") return new Date(value);
    if (type === "Int64" || type === "UInt64") {
        const bits = BigInt.asUintN(64, BigInt(value));
        return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
    }
    if (type === "LocalizedText") return { text: value };
    if (type === "QualifiedName") return { name: value, namespaceIndex: 0 };
    if (type === "ByteString") return Buffer.from(value, "base64");
    if (type === "StatusCode") return statusOf(value);
    if (type === "ExtensionObject") return structureOf(value);
    if (type === "NodeId") return coerceNodeId(value);
    if (type === "ExpandedNodeId") return new ExpandedNodeId(NodeIdType.STRING, value.text, 0, value.uri);
    if (type === "DataValue") return new DataValue({ value: scalar("Variant", value), statusCode: StatusCodes.Good });
    if (type === "Variant") return new Variant({ dataType: DataType[value.type], value: scalar(value.type, value.value) });
    return value;
}

function structureOf({ structure, ...values }) {
    const space = server.engine.addressSpace;
    const own = space.getNamespaceIndex("urn:acme:types");
    const fit = (value) => {
        if (typeof value === "string" && /^\d{4}-\d\d-\d\dT/.test(value)) return new Date(value);
        if (value && value.locale !== undefined) return value;
        return value;
    };
    const given = Object.fromEntries(Object.entries(values).map(([key, value]) => [key, fit(value)]));
    return space.constructExtensionObject(space.findDataType(structure, own) || space.findDataType(structure, 0), given);
}

function plain(type, value) {
    if (value === null || value === undefined) return null;
    if (Array.isArray(value) && !type.endsWith("Int64")) return value.map((item) => plain(type, item));
    if (ArrayBuffer.isView(value) && !Buffer.isBuffer(value)) return Array.from(value);
    if (type === "DateTime") return value.toISOString();
    if (type === "LocalizedText") return value.text;
    return value;
}

function variantOf(entry) {
    if (entry.value === null) return new Variant({ dataType: DataType.Null });
    if (entry.dimensions) {
        const flat = entry.value.flat(Infinity).map((item) => scalar(entry.type, item));
        return new Variant({ dataType: DataType[entry.type], arrayType: VariantArrayType.Matrix, dimensions: entry.dimensions, value: flat });
    }
    if (entry.length === undefined) {
        return new Variant({ dataType: DataType[entry.type], arrayType: VariantArrayType.Scalar, value: scalar(entry.type, entry.value) });
    }
    return new Variant({
        dataType: DataType[entry.type],
        arrayType: VariantArrayType.Array,
        value: entry.value.map((item) => scalar(entry.type, item)),
    });
}

function dataValueOf(path) {
    const entry = model.get(path);
    for (const tear of tears) {
        if (tear.read === path && tear.times > 0) {
            tear.times -= 1;
            const bumped = model.get(tear.bump);
            bumped.value += 1;
        }
    }
    return new DataValue({
        value: variantOf(entry),
        statusCode: statusOf(entry.status),
        sourceTimestamp: entry.source,
        serverTimestamp: new Date(),
    });
}

function written(path, dataValue) {
    const entry = model.get(path);
    if (entry.refuse) return statusOf(entry.refuse);
    entry.value = plain(entry.type, dataValue.value.value);
    entry.source = new Date();
    stats.writes.push([path, entry.value]);
    return StatusCodes.Good;
}

function addVariable(space, parent, path, name, dataType) {
    const entry = model.get(path);
    const access = entry.writable ? AccessLevelFlag.CurrentRead | AccessLevelFlag.CurrentWrite : AccessLevelFlag.CurrentRead;
    return space.addVariable({
        componentOf: parent,
        browseName: name,
        nodeId: `s=${path}`,
        dataType: dataType || (entry.type === "Variant" ? "BaseDataType" : entry.type),
        valueRank: entry.dimensions ? entry.dimensions.length : entry.length === undefined ? -1 : 1,
        arrayDimensions: entry.dimensions || (entry.length === undefined ? null : [entry.length]),
        accessLevel: access,
        userAccessLevel: access,
        minimumSamplingInterval: 5,
        value: {
            timestamped_get: () => dataValueOf(path),
            timestamped_set: (dataValue, callback) => callback(null, written(path, dataValue)),
        },
    });
}

function build(namespaces, twice, tells) {
    const addressSpace = server.engine.addressSpace;
    const spaces = namespaces.map((uri) => addressSpace.registerNamespace(uri));
    const space = spaces.find((each) => each.namespaceUri === "urn:acme:ems");
    if (!space) return;
    const words = ["IDLE", "RECEIVED", "SENT", "REGISTERED", "REFUSED"].map((displayName, value) => ({ displayName, value }));
    const enumeration = space.addEnumerationType({ browseName: "StateWord", enumeration: words });
    folders = new Map();
    const folder = (path) => {
        if (!path) return addressSpace.rootFolder.objects;
        if (!folders.has(path)) {
            const parts = path.split("/");
            const name = parts.pop();
            const parent = folder(parts.join("/"));
            const version = tells.includes(path) ? { nodeVersion: "0" } : {};
            folders.set(path, space.addObject({ organizedBy: parent, browseName: name, nodeId: `s=${path}`, typeDefinition: "FolderType", ...version }));
        }
        return folders.get(path);
    };
    add = (path) => {
        const entry = model.get(path);
        const parts = path.split("/");
        const name = parts.pop();
        const own = addressSpace.getNamespaceIndex("urn:acme:types");
        const structure = entry.structure && (addressSpace.findDataType(entry.structure, own) || addressSpace.findDataType(entry.structure, 0));
        const dataType = entry.enumeration ? enumeration.nodeId : structure ? structure.nodeId : entry.type === "ExtensionObject" ? "Structure" : null;
        const variable = addVariable(space, folder(parts.join("/")), path, name, dataType);
        if (entry.names) {
            space.addVariable({
                propertyOf: variable,
                browseName: { name: "EnumStrings", namespaceIndex: 0 },
                dataType: "LocalizedText",
                valueRank: 1,
                value: { dataType: DataType.LocalizedText, arrayType: VariantArrayType.Array, value: entry.names.map((text) => ({ text })) },
            });
        }
    };
    for (const path of model.keys()) add(path);
    empty.forEach(folder);
    const serviceLevel = addressSpace.findNode("i=2267");
    serviceLevel.minimumSamplingInterval = 5;
    const levelNow = () => new DataValue({ value: new Variant({ dataType: DataType.Byte, value: level }), sourceTimestamp: new Date() });
    serviceLevel.bindVariable({ timestamped_get: levelNow }, true);
    for (const order of methods) {
        const parts = order.path.split("/");
        const name = parts.pop();
        const method = space.addMethod(folder(parts.join("/")), {
            browseName: name,
            inputArguments: order.arguments.map(([argument, type]) => ({ name: argument, dataType: DataType[type] })),
            outputArguments: [{ name: "sequence", dataType: DataType.UInt32 }],
        });
        method.bindMethod((inputs, context, callback) => {
            stats.calls.push(inputs.map((each) => each.value));
            const entry = model.get(order.number.replace("$", inputs.length ? inputs[0].value : ""));
            if (!entry) return callback(null, { statusCode: StatusCodes.BadNoEntryExists });
            callback(null, { statusCode: StatusCodes.Good, outputArguments: [{ dataType: DataType.UInt32, value: entry.value }] });
        });
    }
    for (const path of twice) {
        const parent = folder(path.split("/").slice(0, -1).join("/"));
        parent.addReference({ referenceType: "HasComponent", nodeId: folder(path).nodeId });
    }
}

function below(path) {
    return (each) => each === path || each.startsWith(`${path}/`);
}

function prune(path) {
    const found = [...model.keys()].filter(below(path));
    for (const each of found) {
        pruned.set(each, model.get(each));
        model.delete(each);
    }
    const space = server.engine.addressSpace;
    const node = folders.get(path);
    [...folders.keys()].filter(below(path)).forEach((each) => folders.delete(each));
    if (node) space.deleteNode(node.nodeId);
}

function restore() {
    for (const [path, entry] of pruned) {
        model.set(path, entry);
        if (server) add(path);
    }
    pruned = new Map();
}

function subscriptions() {
    const found = [];
    for (const session of Object.values(server.engine._sessions)) {
        for (const subscription of session.publishEngine.subscriptions) found.push(subscription);
    }
    return found;
}

const orders = {
    async variable(order) {
        model.set(order.path, { source: new Date(), ...order, first: order });
    },

    async reset() {
        for (const path of grown) {
            if (server && model.has(path)) prune(path.split("/").slice(0, 3).join("/"));
            model.delete(path);
            pruned.delete(path);
        }
        grown = [];
        restore();
        for (const entry of model.values()) Object.assign(entry, { status: undefined, refuse: undefined, ...entry.first, source: new Date() });
        tears = [];
        stats = freshStats();
        if (!server) return;
        for (const session of Object.values(server.engine._sessions)) server.engine.closeSession(session.authenticationToken, true, "Terminated");
        await orders.drop();
    },

    async start(order) {
        const pki = new OPCUACertificateManager({ rootFolder: order.pki, automaticallyAcceptUnknownCertificate: !order.trust });
        await pki.initialize();
        for (const file of order.trust || []) {
            const pem = require("fs").readFileSync(file, "utf8").replace(/-----[^-]+-----|\s/g, "");
            await pki.trustCertificate(Buffer.from(pem, "base64"));
        }
        port = port || order.port || 0;
        server = new OPCUAServer({
            port,
            hostname: "127.0.0.1",
            certificateFile: order.certificate,
            privateKeyFile: order.key,
            serverCertificateManager: pki,
            userCertificateManager: pki,
            serverInfo: { applicationUri: order.uri },
            nodeset_filename: [nodesets.standard, ...(order.types ? [require("path").join(__dirname, "types.xml")] : [])],
            securityPolicies: order.policies.map((name) => SecurityPolicy[name]),
            securityModes: order.modes.map((name) => MessageSecurityMode[name]),
            allowAnonymous: !order.user,
            userManager: { isValidUser: (user, password) => user === order.user && password === order.password },
            registerServerMethod: RegisterServerMethod.HIDDEN,
            serverCapabilities: { operationLimits: order.limits || {}, maxSessions: 100, ...order.capabilities },
            onCreateMonitoredItem: async (_, item) => {
                stats.monitored.push([item.samplingInterval, item.queueSize]);
            },
        });
        await server.initialize();
        build(order.namespaces || ["urn:acme:ems"], order.twice || [], order.tells || []);
        server.on("request", (request) => {
            for (const list of ["nodesToRead", "nodesToWrite", "nodesToBrowse", "browsePaths", "itemsToCreate", "methodsToCall"]) {
                if (request[list]) stats.largest[list] = Math.max(stats.largest[list] || 0, request[list].length);
            }
            if (request.constructor.name === "BrowseNextRequest") stats.pages += 1;
            if (request.constructor.name === "ReadRequest") {
                stats.reads += 1;
                stats.most = Math.max(stats.most, request.nodesToRead.length);
            }
        });
        await server.start();
        port = server.endpoints[0].port;
        return { port };
    },

    async grow(order) {
        if (!order.variables) return restore();
        for (const each of order.variables) {
            await orders.variable(each);
            grown.push(each.path);
            add(each.path);
        }
    },

    async prune(order) {
        prune(order.path);
    },

    async folder(order) {
        empty.push(order.path);
    },

    async method(order) {
        methods.push(order);
    },

    async stop() {
        if (!server) return;
        for (const endpoint of server.endpoints) endpoint.abruptlyInterruptChannels();
        await server.shutdown(0);
        server = null;
    },

    async drop() {
        for (const endpoint of server.endpoints) endpoint.abruptlyInterruptChannels();
    },

    async set(order) {
        const entry = model.get(order.path);
        if (!entry) throw new Error(`no variable ${order.path}`);
        if ("value" in order) entry.value = order.value;
        if ("status" in order) entry.status = order.status;
        entry.source = order.source ? new Date(order.source) : new Date();
    },

    async level(order) {
        level = order.value;
    },

    async flood(order) {
        const entry = model.get(order.path);
        for (let count = 0; count < order.times; count += 1) {
            entry.value += 1;
            entry.source = new Date();
            await new Promise((done) => setTimeout(done, order.every));
        }
    },

    async get(order) {
        const entry = model.get(order.path);
        return { value: entry.value, status: entry.status || "Good" };
    },

    async values(order) {
        return { values: order.paths.map((path) => model.get(path).value) };
    },

    async refuse(order) {
        model.get(order.path).refuse = order.status;
    },

    async tear(order) {
        tears = [order];
    },

    "end-subscriptions": async () => {
        const found = subscriptions();
        for (const subscription of found) subscription.terminate();
        return { count: found.length };
    },

    "mute-subscriptions": async () => {
        const found = subscriptions();
        for (const subscription of found) subscription._stop_timer();
        return { count: found.length };
    },

    "skip-notification": async () => {
        const found = subscriptions();
        for (const subscription of found) subscription._get_next_sequence_number();
        return { count: found.length };
    },

    async stats() {
        const shown = subscriptions().map((each) => [each.publishingInterval, each.maxKeepAliveCount, each.lifeTimeCount]);
        const sessions = server ? server.currentSessionCount : 0;
        const channels = server ? Object.values(server.engine._sessions).map((each) => each.channel) : [];
        const secured = channels.map((each) => [each.securityPolicy, MessageSecurityMode[each.securityMode]]);
        return { ...stats, subscriptions: shown, sessions, secured };
    },
};

// What the library itself prints must not mix with the answers.
const answer = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

async function run() {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        let reply;
        try {
            const order = JSON.parse(line);
            reply = (await orders[order.op](order)) || {};
        } catch (error) {
            reply = { error: String(error.stack || error) };
        }
        answer(`${JSON.stringify(reply)}\n`);
    }
    process.exit(0);
}

run();
