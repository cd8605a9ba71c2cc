/* aedes, a broker from other hands than mosquitto's, and a WebSocket gateway (ws) before it or before another broker.

   Orders are JSON lines on standard input, each answered by one line on standard output:
   {op: "listen", port, websocket, upstream, tls: {key, cert, ca}, user, password} -> {port}; port 0 is a free one. websocket is the path at
   which MQTT over WebSocket is spoken, upstream the port of the broker behind it (none: aedes); with tls.ca a client certificate is asked for.
   {op: "ping", payload} sends a WebSocket ping on every connection and waits for the answers -> {answers}.
   {op: "stop"} closes every listener and connection; what aedes keeps (sessions, retained messages) stays.
   {op: "reset"} stops, and forgets that too. */
import { readFileSync } from 'node:fs'
import { createServer as httpServer } from 'node:http'
import { createServer as httpsServer } from 'node:https'
import { connect, createServer as tcpServer } from 'node:net'
import { createInterface } from 'node:readline'
import { createServer as tlsServer } from 'node:tls'
import { Aedes } from 'aedes'
import { WebSocketServer, createWebSocketStream } from 'ws'

const HOST = '127.0.0.1'
const OPTIONS = { queueLimit: 10000, maxClientsIdLength: 64 }
let aedes = await made()
const open = new Set()
const servers = []
const webSockets = new Set()
let known = null

async function made() {
  const broker = await Aedes.createBroker(OPTIONS)
  broker.authenticate = (client, user, password, done) => {
    const right = !known || (user === known.user && String(password) === known.password)
    const refusal = Object.assign(new Error('refused'), { returnCode: 4 })
    done(right ? null : refusal, right)
  }
  return broker
}

/* A connection that breaks is the test's own doing. */
const quiet = (stream) => stream.on('error', () => {})

function secured(tls) {
  if (!tls) return null
  const ca = tls.ca ? readFileSync(tls.ca) : undefined
  return { key: readFileSync(tls.key), cert: readFileSync(tls.cert), ca, requestCert: !!ca, rejectUnauthorized: !!ca }
}

function serve(upstream) {
  return (stream) => {
    quiet(stream)
    if (!upstream) return aedes.handle(stream)
    const behind = quiet(connect({ host: HOST, port: upstream, noDelay: true }))
    stream.pipe(behind).pipe(stream)
    stream.on('close', () => behind.destroy())
    behind.on('close', () => stream.destroy())
  }
}

function listener({ websocket, upstream, tls }) {
  const options = secured(tls)
  const handle = serve(upstream)
  if (!websocket) return options ? tlsServer(options, handle) : tcpServer(handle)
  const server = options ? httpsServer(options) : httpServer()
  const sockets = new WebSocketServer({ server, path: websocket, handleProtocols: (asked) => asked.has('mqtt') && 'mqtt' })
  sockets.on('connection', (socket) => {
    webSockets.add(socket)
    socket.on('close', () => webSockets.delete(socket))
    handle(createWebSocketStream(socket))
  })
  return server
}

const orders = {
  listen: (order) =>
    new Promise((resolve, reject) => {
      if (order.user) known = { user: order.user, password: order.password }
      const server = listener(order)
      server.on('connection', (socket) => {
        open.add(quiet(socket))
        socket.on('close', () => open.delete(socket))
      })
      server.on('tlsClientError', () => {})
      server.on('error', reject)
      server.listen(order.port ?? 0, HOST, () => resolve({ port: server.address().port }))
      servers.push(server)
    }),
  ping: async ({ payload }) => ({
    answers: await Promise.all(
      [...webSockets].map(
        (socket) =>
          new Promise((resolve) => {
            socket.once('pong', (data) => resolve(String(data)))
            socket.once('close', (code) => resolve(`closed with ${code}`))
            socket.ping(payload)
          })
      )
    )
  }),
  stop: async () => {
    const ended = servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve)))
    for (const socket of open) socket.destroy()
    await Promise.all(ended)
    return {}
  },
  reset: async () => {
    await orders.stop()
    known = null
    await new Promise((resolve) => aedes.close(resolve))
    aedes = await made()
    return {}
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    const order = JSON.parse(line)
    answer = await orders[order.op](order)
  } catch (error) {
    answer = { error: String(error) }
  }
  console.log(JSON.stringify(answer))
}
process.exit(0)
