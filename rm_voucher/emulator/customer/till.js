// Holds a voucher before the camera, where the browser can read QR codes. All else works without.
"use strict";
const found = id => document.getElementById(id);
const scan = found("scan"), camera = found("camera"), view = found("view"), said = found("camera-said");
let stream = null;

function stop() {
  if (stream) stream.getTracks().forEach(track => track.stop());
  stream = view.srcObject = null;
  camera.hidden = true;
  scan.textContent = "Scan";
}

async function look(detector) {
  while (stream) {
    const [code] = await detector.detect(view).catch(() => []);
    if (code && stream) {
      found("code").value = code.rawValue;
      stop();
      found("look").requestSubmit(document.querySelector("#look button[value=look]"));
      return;
    }
    await new Promise(resolve => setTimeout(resolve, 150));
  }
}

async function start(detector) {
  camera.hidden = false;
  scan.textContent = "Stop";
  said.textContent = "Hold the QR code before the camera.";
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    said.textContent = "The camera can't be used. Type the code instead.";
    scan.textContent = "Scan";
    return;
  }
  view.srcObject = stream;
  await view.play();
  look(detector);
}

async function offer() {
  if (!("BarcodeDetector" in window) || !navigator.mediaDevices) return;
  if (!(await BarcodeDetector.getSupportedFormats()).includes("qr_code")) return;
  const detector = new BarcodeDetector({ formats: ["qr_code"] });
  scan.hidden = false;
  scan.addEventListener("click", () => (stream ? stop() : start(detector)));
  addEventListener("pagehide", stop);
}

offer();
