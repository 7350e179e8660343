// Node's http, https and http2 modules: node client.js URL PROXY|direct AUTHORITY
const fs = require('fs'), http = require('http'), https = require('https'), http2 = require('http2'), tls = require('tls');
const crypto = require('crypto');
const [url, proxy, ca] = [process.argv[2], process.argv[3], fs.readFileSync(process.argv[4])];
const place = new URL(url), secure = place.protocol === 'https:';
const digest = (octets) => crypto.createHash('sha256').update(octets).digest('hex').slice(0, 12);

function tunnel() {  // CONNECT by hand: Node 20 reads no proxy variables
  return new Promise((done, failed) => {
    const via = new URL(proxy), to = `${place.hostname}:${place.port || 443}`;
    const request = http.request({ host: via.hostname, port: via.port, method: 'CONNECT', path: to, headers: { Host: to } });
    request.on('connect', (answer, socket) => answer.statusCode === 200 ? done(socket) : failed(new Error(answer.statusCode)));
    request.on('error', failed).end();
  });
}

async function ask(method, path, body, headers = {}) {
  const options = { method, headers: { Host: place.host, ...headers }, ca, servername: place.hostname, agent: false };
  if (proxy === 'direct') Object.assign(options, { host: place.hostname, port: place.port, path });
  else if (secure) Object.assign(options, { socket: await tunnel(), path, createConnection: undefined });
  else Object.assign(options, { host: new URL(proxy).hostname, port: new URL(proxy).port, path: url + path });
  if (secure && options.socket) options.createConnection = () => tls.connect({ socket: options.socket, servername: place.hostname, ca });
  return new Promise((done) => {
    const request = (secure ? https : http).request(options, (answer) => {
      const octets = [];
      answer.on('data', (piece) => octets.push(piece));
      answer.on('end', () => done(`${answer.statusCode} ${digest(Buffer.concat(octets))}`));
    });
    request.on('continue', () => console.log('100'));
    request.on('error', (error) => done(`error ${error.code}`));
    if (body) for (let at = 0; at < body.length; at += 65536) request.write(body.subarray(at, at + 65536));
    request.end();
  });
}

async function overHttp2() {
  const options = { ca, servername: place.hostname };
  if (proxy !== 'direct') {
    const socket = tls.connect({ socket: await tunnel(), servername: place.hostname, ca, ALPNProtocols: ['h2'] });
    options.createConnection = () => socket;
  }
  const session = http2.connect(url, options);
  session.on('error', (error) => console.log('h2 session', error.code));
  const one = (path, body) => new Promise((done) => {
    const stream = session.request({ ':path': path, ':method': body ? 'POST' : 'GET' }, { endStream: !body });
    let status, octets = [];
    stream.on('response', (headers) => { status = headers[':status']; });
    stream.on('data', (piece) => octets.push(piece)).on('error', (error) => done(`error ${error.code}`));
    stream.on('end', () => done(`${status} ${digest(Buffer.concat(octets))}`));
    if (body) stream.end(body);
  });
  console.log('h2', (await Promise.all([...Array(30).keys()].map((n) => one(`/text?${n}`)))).join(' '));
  console.log('h2 large', await one('/large'));
  console.log('h2 post', await one('/echo', Buffer.alloc(300000, 'a')));
  session.close();
}

(async () => {
  for (const [method, path] of [['GET', '/page.html'], ['HEAD', '/text'], ['GET', '/large'], ['GET', '/none'], ['DELETE', '/echo']])
    console.log(method, path, await ask(method, path));
  console.log('POST', await ask('POST', '/echo', Buffer.alloc(1000000, 'b')));
  console.log('expect', await ask('POST', '/echo', Buffer.from('hello'), { Expect: '100-continue', 'Content-Length': 5 }));
  if (secure) await overHttp2();
})();
