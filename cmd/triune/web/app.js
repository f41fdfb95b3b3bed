(function(){
"use strict";
var form=document.getElementById("choice"),result=document.getElementById("result"),status=document.getElementById("status");
var running=null,again=null,lastMs=0;
function params(){
  var d=new FormData(form),q=new URLSearchParams();
  d.forEach(function(v,k){
    if(typeof v!=="string"||v==="")return;
    if(k.indexOf("k.")===0&&parseFloat(v)===0)return;
    q.append(k,v);
  });
  return q;
}
function labels(){
  form.querySelectorAll(".knob input").forEach(function(i){
    var f=Math.pow(2,parseFloat(i.value)),v=parseFloat(i.dataset.base)*f,t="x"+f.toPrecision(3)+" = "+Number(v.toPrecision(3))+" "+i.dataset.unit;
    i.parentNode.querySelector("output").textContent=t;i.setAttribute("aria-valuetext",t);
  });
}
function error(m){
  result.textContent="";
  var p=document.createElement("p");p.className="error";p.setAttribute("role","alert");p.textContent=m;result.appendChild(p);
}
function draw(lite){
  labels();
  if(running){
    // While dragging, what runs is let finish and the newest is drawn next.
    if(!(again&&!again.lite))again={lite:lite};
    if(!lite)again.lite=false;
    return;
  }
  var q=params(),t0=performance.now();
  // Browsers allow few changes of the address in a row: not while dragging.
  if(lite)q.set("lite","1");else history.replaceState(null,"","?"+q);
  running=fetch("/view?"+q).then(function(r){return r.text().then(function(html){
    result.innerHTML=html;
    if(window.triuneTables)window.triuneTables(result);
    wireCopy();
    lastMs=performance.now()-t0;
    document.documentElement.dataset.redrawMs=lastMs.toFixed(1);
    document.documentElement.dataset.redraws=String(1+(+document.documentElement.dataset.redraws||0));
    say(r.ok?"drawn in "+lastMs.toFixed(0)+" ms":"");
  });}).catch(function(e){error("the server does not answer: "+e.message);}).then(function(){
    running=null;
    if(again){var n=again;again=null;draw(n.lite);}
  });
}
// The figures stay in view, and are read out, while the drawings change.
function say(more){
  var f=[].map.call(result.querySelectorAll(".card b"),function(b){return b.textContent;}).slice(0,2);
  status.textContent=f.length?f.concat(more||[]).join(", "):"not possible";
}
function wireCopy(){
  result.querySelectorAll("button.copy").forEach(function(b){
    b.addEventListener("click",function(){
      var text=document.getElementById(b.dataset.copy).textContent;
      function done(ok){status.textContent=ok?"copied":"select the text and copy it";}
      if(navigator.clipboard)navigator.clipboard.writeText(text).then(function(){done(true);},function(){done(false);});else done(false);
    });
  });
}
function upload(file){
  status.textContent="reading "+file.name;
  return fetch("/upload?name="+encodeURIComponent(file.name),{method:"POST",body:file}).then(function(r){return r.json().then(function(j){
    if(!r.ok){error(j.error);status.textContent="refused";return;}
    var g=document.getElementById("uploads"),o=document.createElement("option");
    o.value=j.model;o.textContent=j.name;g.hidden=false;g.appendChild(o);
    form.elements.model.value=j.model;
    draw(false);
  });}).catch(function(e){error("the upload failed: "+e.message);});
}
form.addEventListener("input",function(e){if(e.target.type==="range")draw(true);});
form.addEventListener("change",function(e){
  if(e.target.type==="file"){if(e.target.files[0])upload(e.target.files[0]);return;}
  if(e.target.name==="device"){device(e.target.value);return;}
  draw(false);
});
form.addEventListener("submit",function(e){e.preventDefault();draw(false);});
// Sliders are factors of the chosen device's own figures.
function device(name){
  fetch("/api/v1/devices?device="+encodeURIComponent(name)).then(function(r){return r.json();}).then(function(d){
    var at={};(d[0].parameters||[]).forEach(function(p){at[p.path]=p;});
    form.querySelectorAll(".knob").forEach(function(k){
      var i=k.querySelector("input"),p=at[i.name.slice(2)];
      k.hidden=!p;if(p)i.dataset.base=p.value;
    });
    draw(false);
  }).catch(function(e){error("the server does not answer: "+e.message);});
}
// What a slider is, while it is pointed at or has the focus.
var doc=document.getElementById("doc");
["focusin","pointerover"].forEach(function(n){form.addEventListener(n,function(e){
  var k=e.target.closest&&e.target.closest(".knob");
  if(k)doc.textContent=k.querySelector("span").textContent+": "+k.title;
});});
document.getElementById("reset").addEventListener("click",function(){
  form.querySelectorAll(".knob input").forEach(function(i){i.value="0";});form.elements.set.value="";draw(false);
});
document.getElementById("compare").addEventListener("click",function(){
  var q=params();q.delete("b");form.elements.b.value=q.toString();document.getElementById("single").hidden=false;draw(false);
});
document.getElementById("single").addEventListener("click",function(e){form.elements.b.value="";e.target.hidden=true;draw(false);});
document.getElementById("single").hidden=!form.elements.b.value;
["dragenter","dragover"].forEach(function(n){document.addEventListener(n,function(e){e.preventDefault();document.body.classList.add("over");});});
["dragleave","drop"].forEach(function(n){document.addEventListener(n,function(e){e.preventDefault();if(n==="drop"||!e.relatedTarget)document.body.classList.remove("over");});});
document.addEventListener("drop",function(e){if(e.dataTransfer.files[0])upload(e.dataTransfer.files[0]);});
window.triuneUpload=upload;
document.documentElement.classList.add("js");
labels();wireCopy();say("");
document.documentElement.dataset.ready="1";
})();
