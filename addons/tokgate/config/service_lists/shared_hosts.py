"""Domains of content networks, clouds and hosts, below which many customers' names are.

The Public Suffix List has many such domains and misses others. An entry for one of these as a whole would ban every
customer; a customer's own host below it is fine.
"""

from functools import cache
from typing import Final

_KEPT: Final = """
    akadns.net akamai.net akamaiedge.net akamaihd.net akamaitechnologies.com akamaized.net edgekey.net edgesuite.net
    fastly.net fastlylb.net map.fastly.net global.ssl.fastly.net cloudfront.net amazonaws.com awsglobalaccelerator.com
    elasticbeanstalk.com azure.com azureedge.net azurefd.net azurewebsites.net windows.net core.windows.net cloudapp.net
    trafficmanager.net msedge.net l-msedge.net s-msedge.net a-msedge.net b-cdn.net bunnycdn.com cdn77.org cdn77.com
    cdninstance.com cloudflare.com cloudflare.net cloudflarestorage.com cdn.cloudflare.net pages.dev workers.dev r2.dev
    googleapis.com googleusercontent.com gstatic.com appspot.com web.app firebaseapp.com firebaseio.com run.app
    1e100.net ggpht.com ghs.googlehosted.com withgoogle.com edgecastcdn.net epsiloncdn.net systemcdn.net llnwd.net
    llnwi.net lldns.net footprint.net lumen.com stackpathdns.com stackpathcdn.com hwcdn.net kxcdn.com imgix.net
    cloudinary.com jsdelivr.net unpkg.com cachefly.net incapdns.net impervadns.net sucuri.net cdnsun.net gcdn.co
    gcorelabs.com edgecdn.ru cdnvideo.ru ngenix.net yandexcloud.net mycdn.me selcdn.ru selstorage.ru bizmrg.com
    aliyuncs.com alicdn.com alikunlun.com kunlunar.com kunlunca.com kunlunsl.com kunlunle.com cdngslb.com
    myqcloud.com qcloudcdn.com cdntip.com dnsv1.com tdnsv5.com qcloudcos.com bcebos.com bdydns.com jomodns.com
    myhuaweicloud.com cdnhwc1.com cdnhwc2.com cdn20.com wsdvs.com wscdns.com wswebpic.com lxdns.com chinacache.net
    ccgslb.com qiniucdn.com qbox.me clouddn.com upaiyun.com aicdn.com ksyuncdn.com ksyun.com volcdns.com
    herokuapp.com herokudns.com netlify.app netlify.com vercel.app vercel-dns.com github.io githubusercontent.com
    gitlab.io onrender.com fly.dev digitaloceanspaces.com ondigitalocean.app linodeobjects.com backblazeb2.com
    wasabisys.com wpengine.com wordpress.com wixsite.com squarespace.com myshopify.com shopify.com blogspot.com
    zendesk.com freshdesk.com statuspage.io atlassian.net salesforce.com force.com hubspot.com onelink.me app.link
    sentry.io auth0.com okta.com statsigapi.net segment.io segment.com amplitude.com mixpanel.com appsflyer.com
    adjust.com branch.io app-measurement.com arkoselabs.com omtrdc.net 2o7.net demdex.net livekit.cloud
    datadoghq.com newrelic.com nr-data.net intercom.io intercomcdn.com stripe.com qualtrics.com azure-dns.com
    awsdns.com nsone.net dnsmadeeasy.com domaincontrol.com translate.goog s3.amazonaws.com blob.core.windows.net
"""
SHARED_HOSTS: Final = tuple(_KEPT.split())
"""Kept by hand: below each are names of many customers."""


@cache
def _shared() -> frozenset[str]:
    return frozenset(SHARED_HOSTS)


def shared_host(suffix: str) -> str | None:
    """The shared host that a suffix would take in: itself, or one below it; None if there is none."""
    if suffix in _shared():
        return suffix
    below = f".{suffix}"
    return next((host for host in SHARED_HOSTS if host.endswith(below)), None)
