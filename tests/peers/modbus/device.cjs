/* A Modbus TCP device on jsmodbus, driven by JSON lines on standard input; every line is answered by one line. The orders are those of server.py:

   {op: "listen"} -> {port}; again after "away": the same port
   {op: "set", at, words, table} -> {}; {op: "get", at, count, table} -> {words}; table is coils, discrete, input or holding
   {op: "away"} -> {}; closes every connection and stops listening; what is held stays */
const { createServer } = require('node:net')
const { createInterface } = require('node:readline')
const modbus = require('jsmodbus')

const ADDRESSES = 65536
const BITS = new Set(['coils', 'discrete'])
const tables = {
  coils: Buffer.alloc(ADDRESSES / 8),
  discrete: Buffer.alloc(ADDRESSES / 8),
  input: Buffer.alloc(2 * ADDRESSES),
  holding: Buffer.alloc(2 * ADDRESSES)
}
const open = new Set()
let port = 0
let listener = null

function put(table, at, word) {
  const held = tables[table]
  if (!BITS.has(table)) return held.writeUInt16BE(word, 2 * at)
  const mask = 1 << at % 8
  held[at >> 3] = word ? held[at >> 3] | mask : held[at >> 3] & ~mask
}

function get(table, at) {
  const held = tables[table]
  return BITS.has(table) ? (held[at >> 3] >> at % 8) & 1 : held.readUInt16BE(2 * at)
}

const orders = {
  listen: () =>
    new Promise((done) => {
      listener = createServer()
      new modbus.server.TCP(listener, tables)
      listener.on('connection', (socket) => {
        open.add(socket)
        socket.on('error', () => {})
        socket.on('close', () => open.delete(socket))
      })
      listener.listen(port, '127.0.0.1', () => {
        port = listener.address().port
        done({ port })
      })
    }),
  away: () =>
    new Promise((done) => {
      for (const socket of open) socket.destroy()
      listener.close(() => done({}))
    }),
  set: ({ at, words, table = 'holding' }) => {
    words.forEach((word, offset) => put(table, at + offset, word))
    return {}
  },
  get: ({ at, count, table = 'holding' }) => ({ words: Array.from({ length: count }, (_, offset) => get(table, at + offset)) })
}

const lines = createInterface({ input: process.stdin })
lines.on('line', async (line) => {
  const order = JSON.parse(line)
  process.stdout.write(JSON.stringify(await orders[order.op](order)) + '\n')
})
lines.on('close', () => process.exit(0))
