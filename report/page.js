(function(){
"use strict";
document.documentElement.classList.add("js");
function wire(table){
  var body=table.tBodies[0],heads=table.tHead.rows[0].cells;
  Array.prototype.forEach.call(heads,function(th,i){
    var b=document.createElement("button");
    b.type="button";b.textContent=th.textContent;th.textContent="";th.appendChild(b);
    b.addEventListener("click",function(){
      var down=th.getAttribute("aria-sort")==="descending"||(!th.hasAttribute("aria-sort")&&!th.classList.contains("n"));
      var rows=Array.prototype.slice.call(body.rows);
      function key(r){var c=r.cells[i];if(!c)return "";var t=c.dataset.v!==undefined?c.dataset.v:c.textContent;var v=parseFloat(t);return th.classList.contains("n")?(isNaN(v)?-Infinity:v):t.toLowerCase();}
      var keyed=rows.map(function(r,k){return{r:r,k:key(r),i:k};});
      keyed.sort(function(a,b){var s=a.k<b.k?-1:a.k>b.k?1:0;return (down?s:-s)||a.i-b.i;});
      Array.prototype.forEach.call(heads,function(h){h.removeAttribute("aria-sort");});
      th.setAttribute("aria-sort",down?"ascending":"descending");
      keyed.forEach(function(x){body.appendChild(x.r);});
    });
  });
}
function wireAll(root){
  root.querySelectorAll("table.sort").forEach(function(t){if(!t.dataset.wired){t.dataset.wired="1";wire(t);}});
  root.querySelectorAll("[data-filter]").forEach(function(box){
    if(box.dataset.wired)return;box.dataset.wired="1";
    var t=document.getElementById(box.dataset.filter),text=box.querySelector("input"),unit=box.querySelector("select"),out=box.querySelector("output");
    function run(){
      var q=text.value.trim().toLowerCase(),u=unit.value,n=0,ms=0;
      Array.prototype.forEach.call(t.tBodies[0].rows,function(r){
        var hit=(!u||r.dataset.unit===u)&&(!q||r.textContent.toLowerCase().indexOf(q)>=0);
        r.hidden=!hit;if(hit){n++;ms+=parseFloat(r.dataset.ms)||0;}
      });
      out.textContent=n+" layers, "+ms.toPrecision(3)+" ms";
    }
    text.addEventListener("input",run);unit.addEventListener("change",run);run();
  });
}
window.triuneTables=wireAll;
wireAll(document);
})();
