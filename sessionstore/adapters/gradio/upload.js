// Part of each attached page: sends a file larger than LARGE bytes in pieces by tus 1.0.0, and goes on
// after a cut, at any replica. Gradio calls ``fetch`` for its upload and for the stream of its progress;
// both get here what they get from the server. Whatever fails before the first piece is left to Gradio.
(() => {
    const LARGE = __LARGE__
    const SMALLEST = 1 << 18 // bytes of a piece that a proxy must let through
    const TRIES = 60 // in a row, with pauses of up to 10 seconds
    const STALL = 30000 // milliseconds without progress after which a connection is given up
    const ANSWER = 300000 // milliseconds until an answer, as after the last piece
    if (window.sessionstoreFetch) return
    const fetch = (window.sessionstoreFetch = window.fetch.bind(window))
    const uploads = new Map() // by upload_id: what its progress is waiting for

    class Refused extends Error {}
    class NotOurs extends Error {}

    window.fetch = (input, init) => {
        const address = typeof input === "string" ? input : input && (input.url || input.href)
        if (!address || !address.includes("/gradio_api/upload")) return fetch(input, init)
        const at = new URL(address, document.baseURI)
        const body = init && init.body
        const id = at.searchParams.get("upload_id")
        if (at.pathname.endsWith("/gradio_api/upload_progress")) return progress(id, input, init)
        if (at.pathname.endsWith("/gradio_api/upload") && body instanceof FormData) {
            const files = body.getAll("files")
            const large = at.origin === location.origin && files.some((file) => file.size > LARGE)
            const shown = large ? new Progress() : null
            // Gradio 5 asks for the progress before it has set the id.
            for (const each of [id, "undefined"]) begins(each, shown)
            if (large) return upload(at, files, input, init, shown)
        }
        return fetch(input, init)
    }

    function expected(id) {
        if (!uploads.has(id)) {
            const one = {}
            one.begun = new Promise((resolve) => (one.settle = resolve))
            uploads.set(id, one)
        }
        return uploads.get(id)
    }

    // Give the requests for the progress of an upload what it shows, or null for the server's.
    function begins(id, shown) {
        if (expected(id).over) uploads.delete(id)
        expected(id).settle(shown)
        expected(id).over = true
    }

    // The server's stream of the progress: Gradio may ask for it before or after it begins to upload.
    async function progress(id, input, init) {
        const shown = await Promise.race([expected(id).begun, pause(3000)])
        if (shown) return new Response(shown.stream(), {headers: {"content-type": "text/event-stream"}})
        uploads.delete(id)
        return fetch(input, init)
    }

    class Progress {
        constructor() {
            this.readers = new Set()
            this.bytes = new Map() // by the name of the file
        }
        // A stream of all messages. Gradio may draw the component anew and ask for another one.
        stream() {
            let reader
            return new ReadableStream({
                start: (to) => {
                    this.readers.add((reader = to))
                    for (const [name, bytes] of this.bytes) this.tell({msg: "update", orig_name: name, chunk_size: bytes}, [to])
                },
                cancel: () => this.readers.delete(reader),
            })
        }
        tell(message, readers = this.readers) {
            const line = new TextEncoder().encode(`data: ${JSON.stringify(message)}\n\n`)
            for (const reader of readers) reader.enqueue(line)
        }
        // ``said`` is shown in place of the name; a second message, as its name is no file's.
        sent(name, bytes, said) {
            this.bytes.set(name, (this.bytes.get(name) || 0) + bytes)
            this.tell({msg: "update", orig_name: name, chunk_size: bytes})
            this.tell({msg: "update", orig_name: said, chunk_size: 0})
        }
        done() {
            this.tell({msg: "done"})
            for (const reader of this.readers) reader.close()
            this.readers.clear()
        }
    }

    async function upload(at, files, input, init, shown) {
        const headers = new Headers((init && init.headers) || {})
        const paths = []
        try {
            for (const file of files)
                if (file.size > LARGE) paths.push(await whole(at.origin + at.pathname, file, headers, shown))
                else {
                    const form = new FormData()
                    form.append("files", file)
                    const answer = await fetch(at.origin + at.pathname, {...init, body: form})
                    if (!answer.ok) return answer
                    paths.push(...(await answer.json()))
                    shown.sent(file.name, file.size, file.name)
                }
        } catch (error) {
            if (error instanceof NotOurs) return fetch(input, init)
            if (!(error instanceof Refused)) throw new TypeError("Failed to fetch")
            return new Response(error.message, {status: error.status})
        } finally {
            for (const each of [at.searchParams.get("upload_id"), "undefined"]) uploads.delete(each)
            shown.done()
        }
        return new Response(JSON.stringify(paths), {headers: {"content-type": "application/json"}})
    }

    // Return the path that Gradio's own upload of the file would return.
    async function whole(address, file, headers, shown) {
        const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)))
        let place = null, offset = 0, told = 0, piece = LARGE
        const begun = Date.now()
        const said = (sent) => {
            const rate = (sent * 1000) / Math.max(Date.now() - begun, 1)
            const left = rate ? Math.ceil((file.size - sent) / rate) : 0
            if (sent === file.size) return `${file.name} is being stored`
            return `${file.name}: ${size(sent)} of ${size(file.size)}, ${size(rate)}/s, ${left} s left`
        }
        const tell = (sent) => {
            shown.sent(file.name, Math.max(sent - told, 0), said(sent))
            told = Math.max(told, sent)
        }
        for (let tries = 0; ; ) {
            try {
                if (place === null) {
                    const more = {"Upload-Length": file.size, "Upload-Metadata": `filename ${name}`}
                    const made = await send("POST", `${address}/pieces`, headers, more)
                    if (made.status !== 201) throw refusal(made, told === 0)
                    place = `${address}/pieces/${made.header("Location").split("/").pop()}`
                    offset = 0
                }
                if (offset === null) {
                    const state = await send("HEAD", place, headers, {})
                    if (state.status === 404) place = null
                    if (state.status !== 200) throw refusal(state)
                    offset = Number(state.header("Upload-Offset"))
                }
                if (offset < file.size) {
                    const more = {"Upload-Offset": offset, "Content-Type": "application/offset+octet-stream"}
                    const bytes = file.slice(offset, offset + piece)
                    const kept = await send("PATCH", place, headers, more, bytes, (n) => tell(offset + n))
                    if (kept.status === 413 && kept.ours === null && piece > SMALLEST) piece /= 2
                    if (kept.status !== 204) throw refusal(kept)
                    offset = Number(kept.header("Upload-Offset"))
                    tell(offset)
                }
                tries = 0
                if (offset === file.size) {
                    const answer = await send("GET", place, headers, {})
                    if (answer.status !== 200) throw refusal(answer)
                    return answer.ours
                }
            } catch (error) {
                if (error instanceof Refused || error instanceof NotOurs || ++tries > TRIES) throw error
                offset = null
                await pause(tries > 1 ? Math.min(100 * 2 ** tries, 10000) : 0)
            }
        }
    }

    // Return the error for an answer: one that is final, or one after which to try again.
    function refusal(answer, first = false) {
        const final = answer.ours && answer.ours.error && [400, 401, 403, 413, 507].includes(answer.status)
        if (first && answer.status < 500 && answer.status !== 413) return new NotOurs()
        if (!final) return new Error(answer.status)
        return Object.assign(new Refused(answer.ours.error), {status: answer.status})
    }

    function send(method, address, headers, more, body = null, sent = () => {}) {
        return new Promise((resolve, reject) => {
            const request = new XMLHttpRequest()
            let timer = null
            const within = (time) => {
                clearTimeout(timer)
                timer = setTimeout(() => request.abort(), time)
            }
            request.open(method, address)
            headers.forEach((value, name) => request.setRequestHeader(name, value))
            request.setRequestHeader("Tus-Resumable", "1.0.0")
            for (const name in more) request.setRequestHeader(name, more[name])
            request.upload.onprogress = (event) => {
                within(event.loaded < event.total ? STALL : ANSWER)
                sent(event.loaded)
            }
            request.onloadend = () => {
                clearTimeout(timer)
                if (!request.status) return reject(new Error("no answer"))
                const answer = {status: request.status, ours: null, header: (name) => request.getResponseHeader(name)}
                try {
                    answer.ours = JSON.parse(request.responseText)
                } catch {} // of a proxy
                resolve(answer)
            }
            within(body ? STALL : ANSWER)
            request.send(body)
        })
    }

    function size(bytes) {
        const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 4)
        return `${(bytes / 1000 ** power).toFixed(power ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][power]}`
    }

    function pause(time) {
        return new Promise((resolve) => setTimeout(resolve, time))
    }
})()
