/* What the server uses of node-opcua, from the packages that node-opcua-server brings along. */
"use strict";
module.exports = {
    ...require("node-opcua-server"),
    SecurityPolicy: require("node-opcua-secure-channel").SecurityPolicy,
    MessageSecurityMode: require("node-opcua-secure-channel").MessageSecurityMode,
    OPCUACertificateManager: require("node-opcua-certificate-manager").OPCUACertificateManager,
    nodesets: require("node-opcua-nodesets").nodesets,
    DataType: require("node-opcua-variant").DataType,
    coerceNodeId: require("node-opcua-nodeid").coerceNodeId,
    ExpandedNodeId: require("node-opcua-nodeid").ExpandedNodeId,
    NodeIdType: require("node-opcua-nodeid").NodeIdType,
    Variant: require("node-opcua-variant").Variant,
    VariantArrayType: require("node-opcua-variant").VariantArrayType,
    DataValue: require("node-opcua-data-value").DataValue,
    StatusCodes: require("node-opcua-status-code").StatusCodes,
    AccessLevelFlag: require("node-opcua-data-model").AccessLevelFlag,
};
